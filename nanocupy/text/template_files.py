"""The chat templates in the files of a model folder: one, or several by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nanocupy.files import TEMPLATE_BYTES, is_there, read_json_if_there, read_text

DEFAULT = "default"


def template_sources(folder: Path) -> dict[str, str]:
    """The chat templates of a folder by name; {} if it has none.

    From chat_template.jinja and additional_chat_templates/NAME.jinja, else tokenizer_config.json,
    else chat_template.json. A single template is named "default".
    """
    named = {
        path.stem: read_text(path, TEMPLATE_BYTES, folder)
        for path in sorted(folder.glob("additional_chat_templates/*.jinja"))
    }
    if is_there(folder / "chat_template.jinja"):
        named[DEFAULT] = read_text(folder / "chat_template.jinja", TEMPLATE_BYTES)
    if named:
        return named
    for file in ("tokenizer_config.json", "chat_template.json"):
        if found := _parse(read_json_if_there(folder / file).get("chat_template")):
            return found
    return {}


def _parse(value: Any) -> dict[str, str]:
    """The templates in a field: a string, a list of {"name", "template"}, or an object."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    found = value
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        found = {entry.get("name"): entry.get("template") for entry in value}
    if not isinstance(found, dict) or any(type(t) is not str for kv in found.items() for t in kv):
        raise ValueError(
            "a model's chat_template must be text, an object of names and texts, or a list of "
            f'{{"name": ..., "template": ...}}: got {value!r:.200}'
        )
    return found
