"""Folders that nanocupy writes to, checked against writes of other users.

Files in the cache are executed. So a folder is used only if no user but this one and root can
change it, a folder above it, or a link on the way.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import sys
import tempfile
import warnings
from collections import deque
from pathlib import Path

SPARE = 9  # other names to try for a folder that is not trusted
_LINKS = 40  # links allowed in one path


class CacheWarning(RuntimeWarning):
    """Files are kept in another place than expected, or not at all. Issued once in a process."""


class Untrusted(OSError):
    """A folder that another user could have written to; the text says which, and why."""


def cache_folder() -> Path:
    """`$NANOCUPY_CACHE`, else the platform's cache folder for nanocupy. Absolute; not created.

    Without a home folder, it is a folder of this user in the temporary folder.
    """
    if asked := os.environ.get("NANOCUPY_CACHE"):
        return Path(os.path.abspath(os.path.expanduser(asked)))
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local")
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        base = base if base.is_absolute() else Path("~/.cache")  # as XDG has it
    base = Path(os.path.expanduser(base))
    if not base.is_absolute():  # no home, or one that would be the current folder
        user = os.getuid() if hasattr(os, "getuid") else "cache"
        return Path(tempfile.gettempdir()) / f"nanocupy-{user}"
    return base / "nanocupy"


def own_folder(*names: str) -> Path:
    """The folder `names` in the cache; created, for this user alone, if missing.

    If others can write to it, `NAME.1` beside it is used.

    Raises:
        OSError: it cannot be written to; or others could have written to it (Untrusted).
    """
    path = _first_trusted(str(cache_folder()), strict=False)
    for name in names:
        path = _first_trusted(os.path.join(path, name), strict=True)
    return Path(path)


def warn_once(text: str) -> None:
    """Issue a CacheWarning once in a process."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, CacheWarning, stacklevel=3)


_said: set[str] = set()


def _first_trusted(path: str, *, strict: bool) -> str:
    """The first trusted folder of PATH, PATH.1, ..., without links in its path."""
    first: Untrusted | None = None
    for place in (path, *(f"{path}.{n}" for n in range(1, SPARE + 1))):
        try:
            found = trusted(place, strict=strict)
        except Untrusted as error:
            first = first or error
            continue
        if first is not None:
            warn_once(f"[cache] {first}: it is left alone, and {found} is used; delete it")
        return found
    assert first is not None
    raise first


def trusted(path: str, *, strict: bool) -> str:
    """Create the folder if it is missing, and return its path without links.

    Checks every part from the root: in a folder that is trusted, nobody can exchange what was
    checked.

    Args:
        path: absolute.
        strict: the last part must be no link, and nobody else may write to it.

    Raises:
        Untrusted: which folder or link is not trusted, and why.
        NotADirectoryError: a file of this user is in the way.
    """
    if os.name == "nt":
        os.makedirs(path, exist_ok=True)
        return path
    todo, at, links = deque(path.split("/")), "/", 0
    _check(at, os.lstat(at), strict=False)
    while todo:
        part = todo.popleft()
        if part in ("", "."):
            continue
        place = os.path.dirname(at) if part == ".." else os.path.join(at, part)
        found = _look(place)
        ours = strict and not todo
        if stat.S_ISLNK(found.st_mode) and not ours:
            links += 1
            if links > _LINKS:
                raise Untrusted(f"{place} leads through too many links")
            _check_owner(place, found)
            target = os.readlink(place)
            todo.extendleft(reversed(target.split("/")))
            at = "/" if target.startswith("/") else at
            continue
        _check(place, found, strict=ours)
        at = place
    return at


def _look(place: str) -> os.stat_result:
    """The status of `place`, which is created as a folder if missing."""
    try:
        return os.lstat(place)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkdir(place, 0o700)
        return os.lstat(place)


def _check(place: str, found: os.stat_result, *, strict: bool) -> None:
    """Raise Untrusted unless this is a folder in which nobody else can change entries."""
    if stat.S_ISLNK(found.st_mode):
        raise Untrusted(f"{place} is a link")
    _check_owner(place, found)
    if not stat.S_ISDIR(found.st_mode):  # a mistake of this user
        raise NotADirectoryError(f"{place} is not a folder")
    loose = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if loose and strict:
        raise Untrusted(f"others can write to {place}")
    sticky = found.st_mode & stat.S_ISVTX  # owners alone change entries: the next part tells
    if loose and not sticky and (loose & stat.S_IWOTH or not _is_private(found.st_gid)):
        raise Untrusted(f"others can write to {place}")


def _check_owner(place: str, found: os.stat_result) -> None:
    if not is_own(found):
        raise Untrusted(f"{place} belongs to another user")


def is_own(found: os.stat_result) -> bool:
    """Whether it belongs to this user or to root."""
    return os.name == "nt" or found.st_uid in (0, os.geteuid())


@functools.cache
def _is_private(gid: int) -> bool:
    """Whether this user is a group's only member, as in systems with a group for each user."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}
