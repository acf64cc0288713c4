"""Where a model folder keeps its chat templates: one, or several by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nanocupy.text.files import read_json

DEFAULT = "default"


def template_sources(folder: Path) -> dict[str, str]:
    """The chat templates of a folder by name; {} where it has none.

    From chat_template.jinja and additional_chat_templates/NAME.jinja, else tokenizer_config.json,
    else chat_template.json. A single template is named "default".
    """
    named = {
        path.stem: _read(path) for path in sorted(folder.glob("additional_chat_templates/*.jinja"))
    }
    if (folder / "chat_template.jinja").is_file():
        named[DEFAULT] = _read(folder / "chat_template.jinja")
    if named:
        return named
    for file in ("tokenizer_config.json", "chat_template.json"):
        if found := _said(read_json(folder / file).get("chat_template")):
            return found
    return {}


def _said(value: Any) -> dict[str, str]:
    """The templates in a field: a string, a list of {"name", "template"}, or an object."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    said = value
    if isinstance(said, list) and all(isinstance(entry, dict) for entry in said):
        said = {entry.get("name"): entry.get("template") for entry in said}
    if not isinstance(said, dict) or not all(isinstance(t, str) for kv in said.items() for t in kv):
        raise ValueError(
            "a model's chat_template must be text, an object of names and texts, or a list of "
            f'{{"name": ..., "template": ...}}: got {value!r:.200}'
        )
    return said


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
