"""The special tokens of a model, from the JSON files of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nanocupy.files import read_json_if_there

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json as transformers 5 reads it, with older names replaced by newer ones.

    special_tokens_map.json, of older versions, overrides it if it has no added_tokens_decoder. An
    object "extra_special_tokens" becomes "model_specific_special_tokens"; a list stays.
    """
    said = read_json_if_there(folder / "tokenizer_config.json")
    settings = {name: value for name, value in said.items() if value is not None}
    if settings.get("additional_special_tokens") and not settings.get("extra_special_tokens"):
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    if "added_tokens_decoder" not in settings:
        older = read_json_if_there(folder / "special_tokens_map.json")
        both = [said.get("extra_special_tokens") or [] for said in (settings, older)]
        settings |= older
        if all(isinstance(said, list) for said in both):
            settings["extra_special_tokens"] = [*both[0], *both[1]]
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, dict):
        settings["model_specific_special_tokens"] = settings.pop("extra_special_tokens")
    return settings


def named_tokens(settings: Mapping[str, Any]) -> dict[str, Any]:
    """bos_token, eos_token, ... and the model's own names (image_token), each with its token: a
    text, or an object with its "content"."""
    own = [role for role in settings if role.endswith("_token") and role not in NAMED]
    named = {role: settings[role] for role in (*NAMED, *own) if role in settings}
    specific = settings.get("model_specific_special_tokens")
    named |= specific if isinstance(specific, dict) else {}
    return {role: token for role, token in named.items() if token_text(token) is not None}


def extra_tokens(settings: Mapping[str, Any]) -> list[Any]:
    """Special tokens without a name: texts, or objects with a "content"."""
    for key in ("extra_special_tokens", "additional_special_tokens"):
        if settings.get(key):
            return [t for t in settings[key] if token_text(t) is not None]
    return []


def token_text(token: Any) -> str | None:
    """The text of a token given as text or as an object; None for anything else."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def special_token_texts(folder: Path) -> dict[str, str]:
    """The texts of bos_token, eos_token, ..., as chat templates know them."""
    named = named_tokens(tokenizer_settings(folder))
    return {role: text for role, token in named.items() if (text := token_text(token)) is not None}


def end_ids(folder: Path) -> list[int]:
    """Every eos_token_id in generation_config.json and config.json."""
    found: list[int] = []
    for file in ("generation_config.json", "config.json"):
        for said in _eos_fields(read_json_if_there(folder / file)):
            ids = said if isinstance(said, list) else [said]
            if any(type(i) is not int for i in ids):
                raise ValueError(f"{folder / file}: eos_token_id must be token ids, got {said!r}")
            found += ids
    return list(dict.fromkeys(found))


def _eos_fields(config: dict[str, Any]) -> Iterator[Any]:
    """The eos_token_id of a config, and of the text_config inside it."""
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        if (said := part.get("eos_token_id")) is not None:
            yield said


def end_texts(folder: Path) -> list[str]:
    """The text of every eos_token in the files."""
    files = ("tokenizer_config.json", "special_tokens_map.json")
    texts = (token_text(read_json_if_there(folder / file).get("eos_token")) for file in files)
    return [text for text in dict.fromkeys(texts) if text]
