"""Folders of the user's that nanocupy writes to, and whether anybody else could have written there.

What the cache holds is run, so a folder is used only if nobody but this user and root can say what
is in it: not the folder, not one above it, not a link on the way.
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

SPARE = 9  # folders that are tried beside one that cannot be trusted
_LINKS = 40  # that one path may lead through


class CacheWarning(RuntimeWarning):
    """Something is kept elsewhere than it should be, or not at all; told once in a process."""


class Untrusted(OSError):
    """A folder that somebody else could have filled; the text says which, and why."""


def cache_folder() -> Path:
    """`$NANOCUPY_CACHE`, else the platform's cache folder for nanocupy. Absolute; not created.

    Where there is no home, it is a folder of the user's among the temporary ones.
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
    """The folder `names` in the cache, made for this user alone if it is not there.

    One that others can write to is left as it is, and `NAME.1` beside it is used.

    Raises:
        OSError: nobody can write there, or others could have (Untrusted).
    """
    path = _first_trusted(str(cache_folder()), strict=False)
    for name in names:
        path = _first_trusted(os.path.join(path, name), strict=True)
    return Path(path)


def say_once(text: str) -> None:
    """Warn, once in a process, of what is not as the user may think."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, CacheWarning, stacklevel=3)


_said: set[str] = set()


def _first_trusted(path: str, *, strict: bool) -> str:
    """The folder, or the first beside it, that can be trusted. Without a link in its path."""
    first: Untrusted | None = None
    for place in (path, *(f"{path}.{n}" for n in range(1, SPARE + 1))):
        try:
            found = trusted(place, strict=strict)
        except Untrusted as error:
            first = first or error
            continue
        if first is not None:
            say_once(f"[cache] {first}: it is left alone, and {found} is used; delete it")
        return found
    assert first is not None
    raise first


def trusted(path: str, *, strict: bool) -> str:
    """Make the folder if it is missing, and return its path without links.

    Walks down from the root: where a folder can be trusted, nobody can put another thing in the
    place of what was looked at in it.

    Args:
        path: absolute.
        strict: the last part is ours: no link, and nobody else can write to it.

    Raises:
        Untrusted: which folder or link, and why.
        NotADirectoryError: a file of this user's own lies in the way.
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
                raise Untrusted(f"{place} is one link of too many")
            _check_owner(place, found)
            target = os.readlink(place)
            todo.extendleft(reversed(target.split("/")))
            at = "/" if target.startswith("/") else at
            continue
        _check(place, found, strict=ours)
        at = place
    return at


def _look(place: str) -> os.stat_result:
    """What is there; a new folder where nothing is."""
    try:
        return os.lstat(place)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkdir(place, 0o700)
        return os.lstat(place)


def _check(place: str, found: os.stat_result, *, strict: bool) -> None:
    """Raise Untrusted unless this is a folder in which nobody else can change what is there."""
    if stat.S_ISLNK(found.st_mode):
        raise Untrusted(f"{place} is a link")
    _check_owner(place, found)
    if not stat.S_ISDIR(found.st_mode):  # of this user's own: a mistake, which is told
        raise NotADirectoryError(f"{place} is no folder")
    loose = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if loose and strict:
        raise Untrusted(f"others can write to {place}")
    sticky = found.st_mode & stat.S_ISVTX  # each may change what is their own: see the next part
    if loose and not sticky and (loose & stat.S_IWOTH or not _is_private(found.st_gid)):
        raise Untrusted(f"others can write to {place}")


def _check_owner(place: str, found: os.stat_result) -> None:
    if not is_own(found):
        raise Untrusted(f"{place} belongs to another user")


def is_own(found: os.stat_result) -> bool:
    """Whether it belongs to this user, or to root."""
    return os.name == "nt" or found.st_uid in (0, os.geteuid())


@functools.cache
def _is_private(gid: int) -> bool:
    """Whether a group has this user alone: many systems give each a group of the user's name."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}
