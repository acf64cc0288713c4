"""Read the text files of a model folder: of bounded size, and from nowhere else.

A folder may come from anybody. A file in it that is a link leads into the same folder (or into the
hub's blobs, where its cache keeps what snapshots link to); it is a regular file, of no more bytes
than such a file has. What is wrong with one is a ValueError with its path.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

JSON_BYTES = 32 << 20  # the largest index of shards has 9 MB
TEMPLATE_BYTES = 1 << 20  # the largest chat templates have 30 kB
TOKENIZER_BYTES = 128 << 20  # tokenizer.json of a vocabulary of 262,144 has 33 MB


def is_there(path: Path) -> bool:
    """Whether the name exists; reading it may still be refused."""
    return os.path.lexists(path)


def checked(path: Path, most: int, folder: Path | None = None) -> Path:
    """`path`, of a regular file inside `folder` that has at most `most` bytes.

    Args:
        folder: the model's; None: the one that the file lies in.

    Raises:
        ValueError: there is no such file, it leads out of the folder, or it is larger.
    """
    real = _followed(path)
    home = (folder or path.parent).resolve()
    roots = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(root in real.parents for root in roots):
        raise ValueError(
            f"{path} leads out of its folder, to {real}; copy the file, or link the whole folder"
        )
    status = real.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ValueError(f"{path} is not a regular file")
    if status.st_size > most:
        raise ValueError(
            f"{path} cannot be read: it has {status.st_size:,} bytes, and a file of its kind at "
            f"most {most:,}"
        )
    return path


def read_text(path: Path, most: int, folder: Path | None = None) -> str:
    """The UTF-8 text in a file that is `checked`."""
    try:
        with checked(path, most, folder).open("rb") as file:
            data = file.read(most + 1)  # it may have grown since
        if len(data) > most:
            raise ValueError(f"it has more than {most:,} bytes")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def read_json(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """The object in a UTF-8 JSON file of at most 32 MiB."""
    text = read_text(path, JSON_BYTES, folder)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold a JSON object, not {type(value).__name__}")
    return value


def read_json_if_there(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """`read_json`, or {} when there is no such file."""
    return read_json(path, folder) if is_there(path) else {}


def _followed(path: Path) -> Path:
    if not is_there(path):
        raise ValueError(f"{path} does not exist")
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} is missing or cannot be followed: {error}") from error
