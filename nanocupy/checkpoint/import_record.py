"""A record of an imported folder's files, which tells whether the folder is intact.

Reading all weights at every start would take too long. A file with the recorded size and time is
intact; one with another time (touched, copied) is read once and compared.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from nanocupy.device.paths import cache_folder, own_folder
from nanocupy.files import read_json

RECORD = ".imported"
SECOND = 10**9  # nanoseconds: some archives keep no finer times


def import_folder(name: str) -> Path:
    """The path of an imported folder, where no other user can change it.

    Raises:
        ValueError: the cache has no such place.
    """
    try:
        return own_folder("models") / name
    except OSError as error:
        raise not_kept(cache_folder(), error) from error


def not_kept(folder: Path, error: OSError) -> ValueError:
    """The error that a model cannot be kept in a folder of the cache."""
    return ValueError(
        f"cannot keep the model in {folder}: {error}. "
        f"Set NANOCUPY_CACHE to a folder that you can write to"
    )


def write_record(folder: Path) -> None:
    """Record the files of a folder that was just made."""
    files = sorted(path for path in folder.iterdir() if path.name != RECORD)
    _write(folder, {path.name: [sha256(path), *_status(path)] for path in files})


def is_intact(folder: Path) -> bool:
    """Whether every recorded file is there and unchanged."""
    try:
        files = read_json(folder / RECORD)
        found = {name: _still(folder / name, *said) for name, said in files.items()}
    except (OSError, TypeError, ValueError):  # missing, or damaged
        return False
    if not found or None in found.values():
        return False
    if found != files:
        with suppress(OSError):  # of a read-only cache
            _write(folder, found)
    return True


def _still(path: Path, digest: str, size: int, time: int) -> list[Any] | None:
    """The up-to-date record of a file; None if the file has changed."""
    now = _status(path)
    if now[0] == size and now[1] in (time, time // SECOND * SECOND):
        return [digest, size, time]
    if now[0] != size or sha256(path) != digest:
        return None
    return [digest, *now]


def _status(path: Path) -> tuple[int, int]:
    """(bytes, time of the last change)."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _write(folder: Path, files: dict[str, Any]) -> None:
    from nanocupy.checkpoint.writer import write_json

    write_json(folder / RECORD, files)
