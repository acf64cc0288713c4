"""Read JSON objects from a model folder. What is wrong with one is a ValueError with its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 100 << 20


def read_json(path: Path) -> dict[str, Any]:
    """The object in a UTF-8 JSON file of at most 100 MB."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold a JSON object, not {type(value).__name__}")
    return value


def read_json_if_there(path: Path) -> dict[str, Any]:
    """`read_json`, or {} when there is no such file."""
    return read_json(path) if path.is_file() else {}
