"""ChatTemplate: messages to a prompt in which no message can pretend to be anything but text.

How a message's text is kept apart: the template runs a second time over messages in which every
letter stands for itself in disguise, one rare ideograph for each. What comes out has the same
shape, and shows of every character whether the template or a message put it there. A markup token
with any character from a message in it is then text, however the template joined the pieces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nanocupy.files import TEMPLATE_BYTES, is_there, read_text
from nanocupy.text.files import read_json, special_token_texts
from nanocupy.text.sandbox import Template
from nanocupy.text.tokenizer import Span, Tokenizer

Message = Mapping[str, Any]

_EXTRA_TEXT = 1 << 16
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_\-]{0,63}")
_KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
_KNOWN_TYPES = (
    *("text", "image", "image_url", "video", "audio", "document", "function", "tool_call"),
    *("tool_use", "tool_result", "object", "array", "string", "number", "integer", "boolean"),
)
_RESERVED = ("messages", "add_generation_prompt", "chat_template", "tokenize", "conversation")
# Letters that templates act on, or that JSON and repr write differently, stay themselves.
_OPEN = frozenset("'\"\\") | frozenset(map(chr, range(33))) | frozenset("\x7f\x85\xa0\u2028\u2029")
_IDEOGRAPHS = range(0x20000, 0x2A6DF)  # printable, without case, no white space


class ChatTemplate:
    """The chat template of a model folder. ValueError if there is none or it does not compile."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        source = template_source(folder)
        if source is None:
            raise ValueError(f"{folder} has no chat template; use generate with a plain prompt")
        try:
            self._set(source, special_token_texts(folder))
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error

    @classmethod
    def from_source(cls, source: str, texts: Mapping[str, str]) -> ChatTemplate:
        """A template by itself; `texts` are those of bos_token, eos_token, ..."""
        made = cls.__new__(cls)
        made._set(source, texts)
        return made

    def _set(self, source: str, texts: Mapping[str, str]) -> None:
        self.source = source
        self._template = Template(source)
        self._texts = texts

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The prompt as text. Use `encode` for token ids: text cannot tell markup from messages.

        `kwargs` are the template's own variables (`tools`, `documents`, `enable_thinking`, ...):
        plain JSON values. Raises ValueError for messages that are not as they should be.
        """
        variables = _variables(messages, add_generation_prompt, kwargs)
        return self._run(variables, _size(variables))

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> list[int]:
        """The token ids of the prompt. Text in messages never becomes an added token.

        Identical to encoding `render`'s text where messages hold nothing that looks like one. The
        model's own markup that is not special (`<think>`) is kept in assistant messages, for
        templates cut it out of the history.
        """
        variables = _variables(messages, add_generation_prompt, kwargs)
        _check_names(tokenizer, variables)
        size = _size(variables)
        disguise = _Disguise(self.source, tokenizer, variables)
        shown = disguise.undo(self._run(disguise.variables(variables), size))
        spans = tokenizer.encode_spans(shown.text)
        text = self._run(variables, size)
        if text != shown.text and not disguise.forged:  # the template acts on what messages say
            ours = [s.id for s in spans if shown.is_ours(tokenizer, s)]
            ids = tokenizer.encode(text, add_special=False)
            if ours == [i for i in ids if i in tokenizer.added]:
                return ids
        return _respell(tokenizer, spans, shown)

    def _run(self, variables: dict[str, Any], size: int) -> str:
        return self._template.render({**self._texts, **variables}, 4 * (size + _EXTRA_TEXT))


def load_chat_template(folder: str | os.PathLike[str]) -> ChatTemplate | None:
    """The chat template of a model folder, or None if it has none (a base model)."""
    return None if template_source(Path(folder)) is None else ChatTemplate(folder)


def template_source(folder: Path) -> str | None:
    """chat_template.jinja, else what tokenizer_config.json says, else chat_template.json."""
    if is_there(folder / "chat_template.jinja"):
        return read_text(folder / "chat_template.jinja", TEMPLATE_BYTES)
    for file in ("tokenizer_config.json", "chat_template.json"):
        said = read_json(folder / file).get("chat_template")
        if isinstance(said, list):  # named templates
            named = {t.get("name"): t.get("template") for t in said if isinstance(t, dict)}
            said = named.get("default")
        if isinstance(said, str):
            return said
    return None


# --- what may be in messages -----------------------------------------------------------------


def _variables(
    messages: Sequence[Message], add_generation_prompt: bool, kwargs: dict[str, Any]
) -> dict[str, Any]:
    if not isinstance(messages, (list, tuple)) or not messages:
        raise ValueError("messages must be a non-empty list of {'role': ..., 'content': ...}")
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else None
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise ValueError(f"a message needs a role such as {_KNOWN_ROLES}, got {message!r:.200}")
    wrong = [name for name in kwargs if name in _RESERVED or not name.isidentifier()]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} cannot be given to a chat template")
    plain = {name: _plain(value) for name, value in kwargs.items()}
    return {
        "messages": _plain(list(messages)),
        "add_generation_prompt": bool(add_generation_prompt),
        **plain,
    }


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy made of plain JSON types alone: templates must not reach methods of other objects."""
    if depth > 64:
        raise ValueError("messages are nested too deeply")
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("a message holds half a surrogate pair, which is no text")
        return str.__str__(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {_plain(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    raise ValueError(f"messages are plain JSON values, got {type(value).__name__}")


def _size(value: Any) -> int:
    """Characters in all strings of a plain value."""
    if isinstance(value, dict):
        return sum(len(key) + _size(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, str) else 8


def _check_names(tokenizer: Tokenizer, variables: dict[str, Any]) -> None:
    """Refuse markup where text cannot be disguised, because templates look it up or compare it."""
    markup = tokenizer.added.values()
    for message in variables["messages"]:
        role = message["role"]
        if role not in _KNOWN_ROLES and any(role in token for token in markup):
            raise ValueError(
                f"'{role}' cannot be a role: one of the model's added tokens has that text in it; "
                f"expected one such as {', '.join(_KNOWN_ROLES)}"
            )
    names = set(_names(variables))
    settings = (v for k, v in variables.items() if k not in ("messages", "tools", "documents"))
    names.update(text for value in settings for text in _strings(value))
    for token in markup:
        if any(token in name for name in names):
            raise ValueError(f"'{token}' is the model's own markup and cannot be part of a name")


def _names(value: Any) -> list[str]:
    """Every key of every object inside."""
    if isinstance(value, dict):
        return [*value, *(name for inner in value.values() for name in _names(inner))]
    return [name for inner in value for name in _names(inner)] if isinstance(value, list) else []


def _strings(value: Any) -> list[str]:
    """Every string inside that is not a key."""
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, (dict, list)):
        return [text for one in inner for text in _strings(one)]
    return [value] if isinstance(value, str) else []


# --- telling the template's characters from the messages' ------------------------------------


class _Shown:
    """A rendered text, and of each character whether a message put it there."""

    def __init__(self, text: str, foreign: bytes) -> None:
        self.text = text
        self._foreign = foreign

    def is_ours(self, tokenizer: Tokenizer, span: Span) -> bool:
        """Whether a token is markup and all of it is the template's."""
        return span.id in tokenizer.added and 1 not in self._foreign[span.start : span.end]


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches any of `texts`, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


class _Disguise:
    """One ideograph, that occurs nowhere else, for each letter in the messages of one request."""

    def __init__(self, source: str, tokenizer: Tokenizer, variables: dict[str, Any]) -> None:
        taken = set(source).union(*tokenizer.added.values())
        taken = taken.union(*_names(variables), *_strings(variables))
        self._free = (chr(c) for c in _IDEOGRAPHS if chr(c) not in taken)
        self._letters: dict[int, str] = {}
        self._markup = tuple(tokenizer.added.values())
        own = (t for i, t in tokenizer.added.items() if i not in tokenizer.special_ids)
        self._any, self._own = _any_of(self._markup), _any_of(own)
        self.forged = False  # whether a message spells markup out

    def variables(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The same, with the texts of messages, tools and documents disguised."""
        changed = dict(variables)
        changed["messages"] = [self._message(message) for message in variables["messages"]]
        for name in ("tools", "documents"):
            if name in variables:
                changed[name] = self._value(variables[name])
        return changed

    def undo(self, text: str) -> _Shown:
        """The text as it would be, and which of its characters were disguised."""
        back = {ord(ideograph): letter for letter, ideograph in self._letters.items()}
        foreign = bytes(ord(letter) in back for letter in text)
        return _Shown(text.translate(back), foreign)

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        theirs = message["role"] == "assistant"
        changed = {
            name: self._keep_own(value)
            if theirs and isinstance(value, str)
            else self._value(value, name)
            for name, value in message.items()
        }
        return {**changed, "role": message["role"]}

    def _value(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._value(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._value(inner, name) for inner in value]
        if isinstance(value, str) and not (name == "type" and self._is_type(value)):
            return self._text(value)
        return value

    def _is_type(self, value: str) -> bool:
        """Templates compare the "type" of parts, tools and schemas: it must stay what it is."""
        harmless = value.isidentifier() and not any(value in token for token in self._markup)
        return harmless or value in _KNOWN_TYPES

    def _keep_own(self, text: str) -> str:
        """Disguise all but the model's own markup that is not special."""
        kept, end = [], 0
        for match in self._own.finditer(text):
            kept += [self._text(text[end : match.start()]), match[0]]
            end = match.end()
        return "".join([*kept, self._text(text[end:])])

    def _text(self, text: str) -> str:
        self.forged = self.forged or self._any.search(text) is not None
        for letter in set(text) - _OPEN:
            if ord(letter) not in self._letters:
                ideograph = next(self._free, None)
                if ideograph is None:
                    raise ValueError("the messages hold too many different characters")
                self._letters[ord(letter)] = ideograph
        return text.translate(self._letters)


def _respell(tokenizer: Tokenizer, spans: list[Span], shown: _Shown) -> list[int]:
    """The ids of `spans`, with stretches that hold forged markup spelled as plain text.

    A stretch runs from one markup token of the template's to the next: the tokenizer splits there
    anyway, so that nothing around a stretch changes.
    """
    ids: list[int] = []
    stretch: list[int] = []
    begin, end = 0, len(shown.text)
    for span in [*spans, Span(-1, end, end)]:
        if span.id >= 0 and not shown.is_ours(tokenizer, span):
            stretch.append(span.id)
            continue
        if not tokenizer.added.keys().isdisjoint(stretch):
            stretch = tokenizer.encode_plain(shown.text[begin : span.start])
        ids += stretch
        stretch, begin = [], span.end
        if span.id >= 0:
            ids.append(span.id)
    return ids
