"""ChatTemplate: messages to a prompt in which no message can pretend to be anything but text.

The template runs once, over the messages as they are. Every string in it remembers which of its
characters the template wrote itself (`sandbox.provenance`), so that of the finished text each
character is known to be the template's or a message's. A markup token with any character from a
message in it is text, however the template joined the pieces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nanocupy.text.messages import (
    KNOWN_ROLES,
    ContentForms,
    Conversation,
    Message,
    asked_for,
    conversation,
    plain,
    size,
    with_arguments,
    with_contents,
)
from nanocupy.text.sandbox import Template, flags, join, marked, template_text
from nanocupy.text.special_tokens import special_token_texts
from nanocupy.text.template_files import DEFAULT, template_sources
from nanocupy.text.tokenizer import Span, Tokenizer

_EXTRA_TEXT = 1 << 16
# Parts of messages that templates make markup of: `<|image|>`.
_KNOWN_TYPES = ("text", "image", "image_url", "video", "audio", "document")
_RESERVED = ("messages", "add_generation_prompt", "tokenize", "conversation")


class Prompt(NamedTuple):
    """A conversation as a model reads it."""

    text: str
    ids: list[int]


class ChatTemplate:
    """The chat templates of a model folder. ValueError if there is none or it does not compile."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        sources = template_sources(folder)
        if not sources:
            raise ValueError(f"{folder} has no chat template; use generate with a plain prompt")
        self._set_of(folder, sources)

    def _set_of(self, folder: Path, sources: dict[str, str]) -> None:
        try:
            self._set(sources, special_token_texts(folder))
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error

    @classmethod
    def from_source(cls, source: str | Mapping[str, str], texts: Mapping[str, str]) -> ChatTemplate:
        """A template, or several by name; `texts` are those of bos_token, eos_token, ..."""
        made = cls.__new__(cls)
        made._set({DEFAULT: source} if isinstance(source, str) else dict(source), texts)
        return made

    def _set(self, sources: dict[str, str], texts: Mapping[str, str]) -> None:
        own = {role: template_text(text) for role, text in texts.items()}
        self._templates = {name: _Named(source, own) for name, source in sources.items()}
        # Every chat has one that no name is needed for, except among several without a default.
        others = [name for name in sources if name != "tool_use"] or list(sources)
        self._usual = DEFAULT if DEFAULT in sources else others[0] if len(others) == 1 else None
        self.source = sources[self._usual or others[0]]

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """The prompt as text. Use `encode` for token ids: text cannot tell markup from messages.

        Args:
            messages: dicts, or objects with a `model_dump` method, as clients send them: contents
                are strings or lists of text parts, fields that are None count as absent, and
                `arguments` of tool calls may be JSON text.
            add_generation_prompt: begin the answer (the default).
            kwargs: the template's own variables (`tools`, `documents`, `enable_thinking`, ...) as
                plain JSON values; `continue_final_message=True` leaves the last message open, for
                the answer to continue it; `chat_template` is the name of one of several templates.

        Raises:
            ValueError: messages that are not as they should be, or that the template refuses.
        """
        return str.__str__(self._render(None, messages, add_generation_prompt, kwargs))

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """The token ids of the prompt, see `apply`."""
        return self.apply(tokenizer, messages, add_generation_prompt, **kwargs).ids

    def apply(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        limit: int | None = None,
        **kwargs: Any,
    ) -> Prompt:
        """The prompt as `render` gives it and its token ids; arguments as there.

        With a `limit`, TooLongError where there are more tokens than that, as soon as it is known.
        Text in messages never becomes an added token: the ids are those of the text wherever
        messages hold nothing that looks like one. The model's own markup that is not special
        (`<think>`) is kept in assistant messages, for templates cut it out of the history.
        """
        text = self._render(tokenizer, messages, add_generation_prompt, kwargs)
        shown = _Shown(str.__str__(text), flags(text))
        spans = tokenizer.encode_spans(shown.text, limit)
        return Prompt(shown.text, _respell(tokenizer, spans, shown, limit))

    def _render(
        self,
        tokenizer: Tokenizer | None,
        messages: Sequence[Message],
        add_generation_prompt: bool | None,
        kwargs: dict[str, Any],
    ) -> str:
        settings = _settings(kwargs)
        template = self._chosen(settings.pop("chat_template", None), settings["tools"] is not None)
        goes_on = settings.pop("continue_final_message", None) or False
        if goes_on is not True and goes_on is not False:
            raise ValueError(
                "continue_final_message must be true or false, the last message's content is what "
                f"is continued: got {goes_on!r:.100}"
            )
        if goes_on and add_generation_prompt:
            raise ValueError(
                "continue_final_message and add_generation_prompt exclude each other: the first "
                "leaves the last message open, the second begins a new one"
            )
        begins = not goes_on if add_generation_prompt is None else bool(add_generation_prompt)
        chat = template.forms.fit(conversation(messages))
        if tokenizer is not None:
            chat = _Marks(tokenizer).conversation(chat)
        settings["add_generation_prompt"] = begins
        return template.continued(chat, settings) if goes_on else template.render(chat, settings)

    def _chosen(self, name: Any, with_tools: bool) -> _Named:
        if name is None:
            name = "tool_use" if with_tools and "tool_use" in self._templates else self._usual
        if name not in self._templates:
            given = "none was chosen" if name is None else f"got {name!r:.100}"
            raise ValueError(
                f"chat_template must be the name of one of the model's, {sorted(self._templates)}: "
                f"{given}"
            )
        return self._templates[name]


def load_chat_template(folder: str | os.PathLike[str]) -> ChatTemplate | None:
    """The chat template of a model folder, or None if it has none (a base model)."""
    folder = Path(folder)
    sources = template_sources(folder)
    if not sources:
        return None
    made = ChatTemplate.__new__(ChatTemplate)
    made._set_of(folder, sources)
    return made


def _settings(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What callers say to the template, plain; `tools` and `documents` are None if not given."""
    wrong = [name for name in kwargs if name in _RESERVED or not name.isidentifier()]
    if wrong:
        raise ValueError(f"{', '.join(wrong)!r:.200} cannot be given to a chat template")
    found = {name: plain(value, name) for name, value in kwargs.items()}
    for name in ("tools", "documents"):
        value = found.setdefault(name, None)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(inner, dict) for inner in value)
        ):
            raise ValueError(f"{name} must be a list of objects, got {value!r:.100}")
    return found


class _Named:
    """One template with the texts of the model's special tokens."""

    def __init__(self, source: str, texts: Mapping[str, str]) -> None:
        self._template = Template(source)
        self._texts = texts
        self._found: dict[bool, bool] = {}
        self.forms = ContentForms(source, lambda chat: self._run(chat, _settings({})))

    def render(self, chat: Conversation, settings: Mapping[str, Any]) -> str:
        """The text. Where the template cannot take arguments as objects or messages without a
        content, it gets what is next to that: the JSON text, and an empty one."""
        read, spelled = with_arguments(chat)
        if spelled and self._writes_objects(settings):
            read = chat
        ways = (change(form) for form in (read, chat) for change in (list, with_contents))
        return self._first_of(ways, settings)

    def _first_of(self, forms: Iterable[Conversation], settings: Mapping[str, Any]) -> str:
        """The text of the first that the template takes; else the first one's ValueError."""
        tried: list[Conversation] = []
        failed: ValueError | None = None
        for form in forms:
            if form in tried:
                continue
            try:
                return self._run(form, settings)
            except ValueError as error:
                failed = failed or error
                tried.append(form)
        assert failed is not None
        raise failed

    def _writes_objects(self, settings: Mapping[str, Any]) -> bool:
        """Whether arguments that are objects are written out as Python has them: it is tried, for a
        message may hold what such a thing looks like."""
        with_tools = settings["tools"] is not None
        if with_tools not in self._found:
            probe = {"probeneedle": "."}
            try:
                self._found[with_tools] = repr(probe) in self._run(asked_for(probe), settings)
            except ValueError:
                self._found[with_tools] = False
        return self._found[with_tools]

    def continued(self, chat: Conversation, settings: Mapping[str, Any]) -> str:
        """The text up to the end of the last message's content."""
        last, said = _tagged(chat[-1])
        text = self.render([*chat[:-1], last], settings)
        at = _found_tag(text)
        if at < 0 or said.strip() not in text:
            raise ValueError(
                "continue_final_message: this chat template does not show the last message as it "
                "is, so it cannot be continued"
            )
        if text[at : at + len(_TAG)] == _TAG:
            return text[:at]
        return text[: len(text[:at].rstrip())]  # the template strips contents

    def _run(self, chat: Conversation, settings: Mapping[str, Any]) -> str:
        given = {"add_generation_prompt": True, **settings, "messages": chat}
        return self._template.render({**self._texts, **given}, 4 * (size(given) + _EXTRA_TEXT))


_TAG = template_text("CONTINUE_FINAL_MESSAGE_TAG ")
"""transformers' own: some templates know it."""


def _found_tag(text: str) -> int:
    """Where the last tag begins that no message spells; -1 if there is none."""
    tag = _TAG.strip()
    at = text.rfind(tag)
    while at >= 0 and 0 in flags(text[at : at + len(tag)]):
        at = text.rfind(tag, 0, at)
    return at


def _tagged(message: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The message with a tag behind its last text; that text."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": join([content, _TAG])}, content
    parts = list(content) if isinstance(content, list) else []
    for index, part in reversed([*enumerate(parts)]):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            parts[index] = {**part, "text": join([part["text"], _TAG])}
            return {**message, "content": parts}, part["text"]
    raise ValueError("continue_final_message: the last message has no text to continue")


# --- what of messages is the template's -------------------------------------------------------


class _Marks:
    """Marks what templates may make markup of: roles, types of parts, and in assistant messages the
    model's own markup that is not special."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def conversation(self, chat: Conversation) -> Conversation:
        """The same messages, marked."""
        return [self._message(message) for message in chat]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        role = message["role"]
        if role not in KNOWN_ROLES and any(role in t for t in self._tokenizer.added.values()):
            raise ValueError(
                f"'{role}' cannot be a role: one of the model's added tokens has that text in it; "
                f"expected one such as {', '.join(KNOWN_ROLES)}"
            )
        changed = dict(message)
        if role == "assistant":
            for name, value in message.items():
                changed[name] = self._text(value) if isinstance(value, str) else value
        if isinstance(message.get("content"), list):
            changed["content"] = [self._part(part, role) for part in message["content"]]
        return {**changed, "role": template_text(role)}

    def _part(self, part: Any, role: str) -> Any:
        if not isinstance(part, dict):
            return part
        changed = dict(part)
        if part.get("type") in _KNOWN_TYPES:
            changed["type"] = template_text(part["type"])
        if role == "assistant" and isinstance(part.get("text"), str):
            changed["text"] = self._text(part["text"])
        return changed

    def _text(self, text: str) -> str:
        return marked(text, (match.span() for match in self._tokenizer.own_markup.finditer(text)))


# --- token ids -------------------------------------------------------------------------------


class _Shown(NamedTuple):
    """A rendered text, and of each character whether the template wrote it (1) or a message (0)."""

    text: str
    own: bytes

    def is_ours(self, tokenizer: Tokenizer, span: Span) -> bool:
        """Whether a token is markup and all of it is the template's."""
        if span.id not in tokenizer.added:
            return False
        start, end = span.start, span.end
        if (at := self.text.find(tokenizer.added[span.id], start, end)) >= 0:
            start, end = at, at + len(tokenizer.added[span.id])  # without spaces that it swallowed
        return 0 not in self.own[start:end]

    def overlapped(self, tokenizer: Tokenizer, begin: int, end: int) -> Span | None:
        """The first markup in a part of the text that is all the template's."""
        for run in re.finditer(b"\x01+", self.own[begin:end]):
            at = begin + run.start()
            for span in tokenizer.encode_spans(self.text[at : begin + run.end()]):
                if span.id in tokenizer.added:
                    return Span(span.id, at + span.start, at + span.end)
        return None


def _respell(
    tokenizer: Tokenizer, spans: list[Span], shown: _Shown, limit: int | None
) -> list[int]:
    """The ids of `spans`, with stretches that hold forged markup spelled as plain text.

    A stretch runs from one markup token of the template's to the next: the tokenizer splits there
    anyway, so that nothing around a stretch changes.
    """
    ids: list[int] = []
    stretch: list[Span] = []
    begin, end = 0, len(shown.text)
    for span in [*spans, Span(-1, end, end)]:
        if span.id >= 0 and not shown.is_ours(tokenizer, span):
            stretch.append(span)
            continue
        forged = [inner for inner in stretch if inner.id in tokenizer.added]
        if forged:
            ids += _spelled(tokenizer, shown, Span(-1, begin, span.start), forged, limit)
        else:
            ids += [inner.id for inner in stretch]
        stretch, begin = [], span.end
        if span.id >= 0:
            ids.append(span.id)
    return ids


def _spelled(
    tokenizer: Tokenizer, shown: _Shown, stretch: Span, forged: list[Span], limit: int | None
) -> list[int]:
    """The ids of a stretch as plain text, but for markup of the template's that forged markup hid:
    a message that ends in "of" before "<|end|>", where "of<|end|>" is a token, too."""
    ids: list[int] = []
    _, begin, end = stretch
    if any(1 in shown.own[span.start : span.end] for span in forged):
        while (hidden := shown.overlapped(tokenizer, begin, end)) is not None:
            ids += tokenizer.encode_plain(shown.text[begin : hidden.start], limit)
            ids.append(hidden.id)
            begin = hidden.end
    return [*ids, *tokenizer.encode_plain(shown.text[begin:end], limit)]
