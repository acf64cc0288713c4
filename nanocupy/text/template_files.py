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
    if isinstance(value, list):
        value = {t.get("name"): t.get("template") for t in value if isinstance(t, dict)}
    if isinstance(value, dict):
        return {
            name: source
            for name, source in value.items()
            if isinstance(name, str) and isinstance(source, str)
        }
    return {DEFAULT: value} if isinstance(value, str) else {}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
