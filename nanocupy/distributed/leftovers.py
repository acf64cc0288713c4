"""Removes shared-memory files of Open MPI that a killed job left behind.

A process maps the memory it shares for as long as it lives, so a file that no process maps is not
in use.
"""

from __future__ import annotations

import os
import platform
import stat
import time
from contextlib import suppress
from pathlib import Path

SETTING = "OMPI_MCA_btl_sm_backing_directory"
PATTERN = "sm_segment.{host}.*"  # then the user, the job and the rank
YOUNG = 1.0  # seconds: a newer file may not be mapped yet


def folder() -> Path:
    """The folder of Open MPI's shared-memory files."""
    return Path(os.environ.get(SETTING) or "/dev/shm").resolve()  # as maps name it


def clear() -> list[Path]:
    """Remove this user's files that are not in use; returns them."""
    found = [path for path in folder().glob(PATTERN.format(host=platform.node())) if _old(path)]
    used = _mapped() if found else set()
    gone = []
    for path in found:
        if str(path) not in used:
            with suppress(OSError):  # another rank was quicker
                path.unlink()
                gone.append(path)
    return gone


def _old(path: Path) -> bool:
    with suppress(OSError):
        about = path.lstat()
        mine = stat.S_ISREG(about.st_mode) and about.st_uid == os.getuid()
        return mine and time.time() - about.st_mtime > YOUNG
    return False


def _mapped() -> set[str]:
    """Every file that a process of this machine maps."""
    files: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # it has ended, or is another user's
            lines = maps.read_text(errors="surrogateescape").splitlines()
            files.update(line.split(maxsplit=5)[5] for line in lines if "/" in line)
    return files
