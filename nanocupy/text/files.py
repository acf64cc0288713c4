"""The JSON files of a model folder that say how its text works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} when there is no such file; ValueError if it is no object."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold a JSON object, not {type(value).__name__}")
    return value


def special_token_texts(folder: Path) -> dict[str, str]:
    """bos_token, eos_token, ... to their text, as chat templates know them."""
    found = read_json(folder / "special_tokens_map.json")
    found |= read_json(folder / "tokenizer_config.json")
    texts = {}
    for role, token in found.items():
        text = token.get("content") if isinstance(token, dict) else token
        if role.endswith("_token") and isinstance(text, str):
            texts[role] = text
    return texts
