"""Folders of the user's that nanocupy writes to."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`$NANOCUPY_CACHE`, else the platform's cache folder for nanocupy. Not created here."""
    if asked := os.environ.get("NANOCUPY_CACHE"):
        return Path(asked).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nanocupy"


def private_folder(path: Path) -> Path:
    """Create the folder, readable by its owner alone, and refuse one that somebody else owns."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = path.stat()
        if hasattr(os, "getuid") and found.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user")
        if found.st_mode & 0o777 != 0o700:  # else it may be on a disk that is read only
            path.chmod(0o700)
    except OSError as error:
        raise unwritable(error) from error
    return path


def unwritable(error: OSError) -> OSError:
    """The same, with what to do about it."""
    return OSError(
        f"cannot keep compiled kernels: {error}. Set NANOCUPY_CACHE to a folder of yours that you "
        "can write to, with room in it"
    )
