"""The JSON files of a model folder that say how its text works."""

from __future__ import annotations

from pathlib import Path

from nanocupy.files import read_json_if_there as read_json

__all__ = ["read_json", "special_token_texts"]


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
