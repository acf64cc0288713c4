"""Conversations for chat templates, hostile ones too; needs nothing but Python.

In golden/chat/conversations.json `@@` stands for all markup that a template writes, a piece of
golden/chat/markup.json each, and `@special@` for that of it which is special.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[1] / "golden" / "chat"
TEXTS = {"bos_token": "<s>", "eos_token": "</s>"}

_MARKUP = json.loads((FOLDER / "markup.json").read_text(encoding="utf-8"))
SPECIAL: list[str] = _MARKUP["special"]
OWN: list[str] = _MARKUP["own"]
"""What vocabularies add without calling it special, as some do with `<think>`."""
# Written by templates that put them together, or by those who have a name for them.
_EVERYWHERE = ("<s>", "</s>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|tool|>", "</think>")
_HARMLESS = {"</": "qv", "[/": "kv", "<": "q", ">": "p", "[": "k", "]": "j"}
_STRUCTURE = ("role", "type")


class Case(NamedTuple):
    """A conversation, and what a chat template is given beside it."""

    name: str
    messages: list[dict[str, Any]]
    kwargs: dict[str, Any]

    @property
    def is_hostile(self) -> bool:
        """Whether its messages spell markup."""
        return self.name.startswith("markup")


def template_source(name: str) -> str:
    """A template of golden/chat."""
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def conversations(source: str = "") -> list[Case]:
    """Those of conversations.json; the hostile ones spell the markup in `source`."""
    special, own = (
        " ".join(text for text in texts if text in source or text in _EVERYWHERE)
        for texts in (SPECIAL, OWN)
    )

    def spelled_out(text: str) -> str:
        return text.replace("@@", f"{special} {own}").replace("@special@", special)

    return [Case(**row)._replace(**_changed(row, spelled_out)) for row in _rows()]


@cache
def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((FOLDER / "conversations.json").read_text("utf-8"))
    return rows


def harmless(case: Case) -> Case:
    """The same conversation without a bracket in what anybody says: no markup is left."""
    given = {"messages": case.messages, "kwargs": case.kwargs}
    return case._replace(**_changed(given, _without_brackets))


def _changed(given: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    return {name: _walk(given[name], change) for name in ("messages", "kwargs")}


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_walk(inner, change) for inner in value]
    if not isinstance(value, dict):
        return value
    kept = {key: inner for key, inner in value.items() if key in _STRUCTURE}
    return {change(key): _walk(inner, change) for key, inner in value.items()} | kept


def _without_brackets(text: str) -> str:
    for bracket, letters in _HARMLESS.items():
        text = text.replace(bracket, letters)
    return text
