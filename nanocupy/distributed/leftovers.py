"""Memory files of Open MPI's that a job left behind: those of one that was killed all at once.

Who shares memory maps it as long as it lives, so a file of ours that no process maps is nobody's.
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
YOUNG = 1.0  # seconds: a file that has only just been made is mapped soon


def folder() -> Path:
    """Where Open MPI keeps the memory that processes of a host share."""
    return Path(os.environ.get(SETTING) or "/dev/shm").resolve()  # as maps name it


def clear() -> list[Path]:
    """Remove what is left behind and ours; what that was. A file in use is never touched."""
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
        with suppress(OSError):  # it has ended, or it is not ours: nor does it map what is
            lines = maps.read_text(errors="surrogateescape").splitlines()
            files.update(line.split(maxsplit=5)[5] for line in lines if "/" in line)
    return files
