"""Messages from clients, converted to plain values that a chat template can take."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

Message = Mapping[str, Any]
Conversation = list[dict[str, Any]]

_TOOL_ROLES = ("tool", "function", "ipython", "observation")
KNOWN_ROLES = ("system", "developer", "user", "assistant", *_TOOL_ROLES)
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_\-]{0,63}")
_TEXT_TYPES = ("text", "input_text", "output_text")
_REASONING = ("reasoning_content", "thinking", "reasoning")
_MAX_DEPTH = 64


def conversation(messages: Sequence[Message]) -> Conversation:
    """Messages as dicts of plain JSON types, without fields that are None.

    Reasoning gets all the names that templates read it by. ValueError for invalid messages.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise ValueError("messages must be a non-empty list of {'role': ..., 'content': ...}")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Any, name: str) -> dict[str, Any]:
    found = plain(message, name)
    role = found.get("role") if isinstance(found, dict) else None
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise ValueError(f"{name} needs a role such as {KNOWN_ROLES}, got {message!r:.200}")
    found = _present(found)
    calls = found.get("tool_calls")
    if isinstance(calls, list):
        found["tool_calls"] = [_present(_with(call, "function", _present)) for call in calls]
    thought = next((found[key] for key in _REASONING if key in found), None)
    if thought is None:
        return found
    return {"thinking": thought, **found, "reasoning_content": thought}


def _present(value: Any) -> Any:
    """An object without the fields that are None; anything else as it is."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if inner is not None}


def _with(value: Any, key: str, change: Callable[[Any], Any]) -> Any:
    """An object with `change` made to one of its fields; anything else as it is."""
    if not isinstance(value, dict) or key not in value:
        return value
    return {**value, key: change(value[key])}


def plain(value: Any, name: str = "messages", depth: int = 0) -> Any:
    """A copy made of plain JSON types: templates must not reach methods of other objects."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"{name}: nested too deeply, more than {_MAX_DEPTH} levels")
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} holds half a surrogate pair, which is no text") from None
        return str.__str__(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {plain(k, name): plain(inner, name, depth + 1) for k, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner, name, depth + 1) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        shown = {field.name: getattr(value, field.name) for field in fields(value)}
        return plain(shown, name, depth)
    if callable(getattr(value, "model_dump", None)):  # pydantic, as in the OpenAI client
        return plain(value.model_dump(), name, depth + 1)
    raise ValueError(f"{name}: messages are plain JSON values, got {type(value).__name__}")


def size(value: Any) -> int:
    """How many characters all strings of a plain value have."""
    if isinstance(value, dict):
        return sum(len(key) + size(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(map(size, value))
    return len(value) if isinstance(value, str) else 8


# --- arguments of tool calls -----------------------------------------------------------------


def with_arguments(messages: Conversation) -> tuple[Conversation, bool]:
    """(the messages with arguments of tool calls parsed from JSON text, whether there were any)."""
    spelled = False

    def read(arguments: Any) -> Any:
        if not isinstance(arguments, str):
            return arguments
        try:
            found = plain(json.loads(arguments))
        except (ValueError, RecursionError):
            return arguments
        if not isinstance(found, dict):
            return arguments
        nonlocal spelled
        spelled = True
        return found

    def call(value: Any) -> Any:
        return _with(value, "function", lambda function: _with(function, "arguments", read))

    def calls(value: Any) -> Any:
        return [call(inner) for inner in value] if isinstance(value, list) else value

    changed = [_with(message, "tool_calls", calls) for message in messages]
    return (changed, spelled) if spelled else (messages, spelled)


def with_contents(messages: Conversation) -> Conversation:
    """The messages with an empty content where there is none."""
    return [{"content": "", **message} for message in messages]


# --- contents: text, or parts ----------------------------------------------------------------

_NEEDLE = "probeneedle"
_MOST_ROLES = 64  # kept; callers choose roles
# A part as JSON, as Python writes it, or with a model's own marks for quotes; keys in any order.
_PARTS_WRITTEN_OUT = re.compile(rf"type\W+text\W+text\W+{_NEEDLE}|text\W+{_NEEDLE}\W+type\W+text")


class ContentForms:
    """Finds by trying whether a template takes contents as strings or as lists of parts."""

    def __init__(self, source: str, render: Callable[[Conversation], str]) -> None:
        self._knows_strings = re.search(r"\bis\s+(not\s+)?string\b", source) is not None
        self._render = render
        self._found: dict[tuple[str, bool], bool] = {}

    def fit(self, messages: Conversation) -> Conversation:
        """The messages with contents in the form that the template takes. ValueError for a part
        that is not text, if it takes strings."""
        return [self._fit(message, f"messages[{i}]") for i, message in enumerate(messages)]

    def _fit(self, message: dict[str, Any], name: str) -> dict[str, Any]:
        content, role = message.get("content"), message["role"]
        if isinstance(content, list) and not self._takes(role, parts=True):
            return {**message, "content": "\n".join(_texts(content, f"{name}.content"))}
        if isinstance(content, str) and self._takes_parts_alone(role):
            return {**message, "content": [{"type": "text", "text": content}]}
        return message

    def _takes_parts_alone(self, role: str) -> bool:
        if self._knows_strings or self._takes(role, parts=False):
            return False
        return self._takes(role, parts=True)

    def _takes(self, role: str, parts: bool) -> bool:
        if (role, parts) not in self._found:
            if len(self._found) >= _MOST_ROLES:
                return self._shows(role, parts)
            self._found[role, parts] = self._shows(role, parts)
        return self._found[role, parts]

    def _shows(self, role: str, parts: bool) -> bool:
        content = [{"type": "text", "text": _NEEDLE}] if parts else _NEEDLE
        try:
            text = self._render(_around({"role": role, "content": content})).lower()
        except ValueError:
            return False
        return _NEEDLE in text and not _PARTS_WRITTEN_OUT.search(text)


def _around(message: dict[str, Any]) -> Conversation:
    """A conversation in which a message of its role can occur."""
    if message["role"] in ("system", "developer"):
        return [message, {"role": "user", "content": "."}]
    if message["role"] == "user":
        return [message]
    if message["role"] in _TOOL_ROLES:
        return [*asked_for({}), {**message, "name": "f", "tool_call_id": "call00000"}]
    return [{"role": "user", "content": "."}, message]


def asked_for(arguments: Any) -> Conversation:
    """A conversation in which a tool is called with `arguments`."""
    function = {"name": "f", "arguments": arguments}
    call = {"id": "call00000", "type": "function", "function": function}
    assistant = {"role": "assistant", "content": "", "tool_calls": [call]}
    return [{"role": "user", "content": "."}, assistant]


def _texts(content: list[Any], name: str) -> Iterator[str]:
    for index, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) else None
        if kind not in _TEXT_TYPES or not isinstance(text, str):
            raise ValueError(
                f"{name}[{index}] is of type {kind!r:.100}; this model's chat template takes text: "
                "give parts such as {'type': 'text', 'text': ...}"
            )
        yield text
