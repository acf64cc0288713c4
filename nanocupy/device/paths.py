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
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{path} belongs to another user; set NANOCUPY_CACHE to a folder of yours"
        )
    path.chmod(0o700)
    return path
