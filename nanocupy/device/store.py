"""A store of compiled kernels, in a folder that no other user could have written to.

A store never fails. If it cannot keep files (full disk, read-only file system, no home, a folder of
another user), kernels are compiled at each start, in memory, with one warning.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Any

from nanocupy.device.paths import is_own, own_folder, warn_once

MOST = 1 << 30  # bytes of a file
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = _NO_LINK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Store:
    """The files of the folder `names` in the cache.

    Attributes:
        folder: where they are; None: nothing is kept.
    """

    def __init__(self, *names: str) -> None:
        self.folder: Path | None = None
        self._at: dict[str, Any] = {}  # an open folder cannot be exchanged for another
        try:
            self.folder = own_folder(*names)
            if os.open in os.supports_dir_fd:
                self._at = {"dir_fd": os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)}
        except OSError as error:
            self.folder = None
            _say(str(error))

    def path(self, name: str) -> str:
        """The path of a file, to use with `dir_fd`."""
        assert self.folder is not None
        return name if self._at else str(self.folder / name)

    def holds(self, name: str) -> bool:
        """Whether a file exists and may be trusted."""
        try:
            return self.folder is not None and _is_ours(
                os.stat(self.path(name), follow_symlinks=False, **self._at)
            )
        except OSError:
            return False

    def read(self, name: str) -> bytes | None:
        """The contents of a file; None if it is missing, or not a regular file that only this user
        or root could have written."""
        if not self.holds(name):  # a pipe or a device is not even opened
            return None
        try:
            handle = os.open(
                self.path(name), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS, **self._at
            )
            with os.fdopen(handle, "rb") as file:
                return file.read() if _is_ours(os.fstat(file.fileno())) else None
        except OSError:
            return None

    def write(self, name: str, data: bytes) -> bool:
        """Write a file atomically; whether it was written."""
        if self.folder is None:
            return False
        temporary = self.path(f".{name}.{secrets.token_hex(8)}")
        try:
            self._write(temporary, name, data)
        except OSError as error:
            _say(f"{self.folder}: {error.strerror}")
            return False
        return True

    def _write(self, temporary: str, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
        handle = os.open(temporary, flags, 0o600, **self._at)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, self.path(name), **self._both())
        except BaseException:
            os.unlink(temporary, **self._at)
            raise

    def _both(self) -> dict[str, int]:
        """The folder as arguments of a function with two paths."""
        return {f"{end}_dir_fd": fd for fd in self._at.values() for end in ("src", "dst")}


def _is_ours(found: os.stat_result) -> bool:
    """Whether it is a regular file of this user (with one link) or root that no other can write."""
    others = stat.S_IWGRP | stat.S_IWOTH if os.name != "nt" else 0
    alone = found.st_nlink == 1 or os.name == "nt" or found.st_uid != os.geteuid()
    plain = stat.S_ISREG(found.st_mode) and found.st_size <= MOST
    return plain and alone and is_own(found) and not found.st_mode & others


def _say(why: str) -> None:
    warn_once(
        f"[cache] compiled kernels are not kept, so each start compiles them again: {why}. "
        "Set NANOCUPY_CACHE to a folder of yours, with room in it, that nobody else can write to"
    )


def in_memory(name: str, data: bytes) -> Path:
    """A file that is not on disk, to be loaded by its path; it lives as long as the process."""
    if not hasattr(os, "memfd_create"):
        handle, path = tempfile.mkstemp(suffix=name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return Path(path)
    handle = os.memfd_create(name)  # never closed: a loader knows a library by its path
    with os.fdopen(handle, "wb", closefd=False) as file:
        file.write(data)
    return Path(f"/proc/self/fd/{handle}")
