"""ChatTemplate: messages to a prompt, in which messages are never anything but text.

The template runs once, over the messages as they are. Every string in it remembers which of its
characters the template wrote itself (`sandbox.provenance`). So each character of the result is
known to be the template's or a message's, and a markup token with any character of a message in it
becomes plain text.
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
# Types of parts that templates turn into markup: `<|image|>`.
_KNOWN_TYPES = ("text", "image", "image_url", "video", "audio", "document")
_RESERVED = ("messages", "add_generation_prompt", "tokenize", "conversation")


class Prompt(NamedTuple):
    """A conversation as the model reads it."""

    text: str
    ids: list[int]


class ChatTemplate:
    """The chat templates of a model. ValueError if one does not compile.

    Args:
        source: a template, or several by name.
        texts: the texts of bos_token, eos_token, ...
    """

    def __init__(self, source: str | Mapping[str, str], texts: Mapping[str, str]) -> None:
        sources = {DEFAULT: source} if isinstance(source, str) else source
        own = {role: template_text(text) for role, text in texts.items()}
        self._templates = {name: _NamedTemplate(text, own) for name, text in sources.items()}
        # The one for calls without a name; None: there are several, and no default.
        others = [name for name in sources if name != "tool_use"] or list(sources)
        self._default = DEFAULT if DEFAULT in sources else others[0] if len(others) == 1 else None
        self.source = sources[self._default or others[0]]

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """The prompt as text. Use `apply` for token ids: text cannot tell markup from messages.

        Args:
            messages: dicts, or objects with a `model_dump` method. Contents are strings or lists of
                text parts. Fields that are None count as absent. `arguments` of tool calls may be
                JSON text.
            add_generation_prompt: end with the beginning of an answer (the default).
            kwargs: the template's variables (`tools`, `documents`, `enable_thinking`, ...) as plain
                JSON values. `continue_final_message=True` leaves the last message open, so that
                the answer continues it. `chat_template` names one of several templates.

        Raises:
            ValueError: the messages are invalid, or the template refuses them.
        """
        return str.__str__(self._render(None, messages, add_generation_prompt, kwargs))

    def apply(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        limit: int | None = None,
        **kwargs: Any,
    ) -> Prompt:
        """The prompt that `render` returns, and its token ids. Arguments as there.

        Text in messages never becomes an added token. Where messages contain nothing that looks
        like one, the ids are those of the text. In assistant messages, markup of the model that is
        not special (`<think>`) is kept: templates cut it out of the history.

        Raises:
            TooLongError: there are more than `limit` tokens; raised as soon as it is known.
        """
        text = self._render(tokenizer, messages, add_generation_prompt, kwargs)
        shown = _Rendered(str.__str__(text), flags(text))
        spans = tokenizer.encode_spans(shown.text, limit)
        return Prompt(shown.text, _ids_of(tokenizer, spans, shown, limit))

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
            chat = _MarkupMarker(tokenizer).conversation(chat)
        settings["add_generation_prompt"] = begins
        return template.continued(chat, settings) if goes_on else template.render(chat, settings)

    def _chosen(self, name: Any, with_tools: bool) -> _NamedTemplate:
        if name is None:
            name = "tool_use" if with_tools and "tool_use" in self._templates else self._default
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
    return compile_templates(folder, template_sources(folder), special_token_texts(folder))


def compile_templates(
    folder: Path, sources: Mapping[str, str], texts: Mapping[str, str]
) -> ChatTemplate | None:
    """The chat template of sources that were read from a folder, which errors name."""
    try:
        return ChatTemplate(sources, texts) if sources else None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _settings(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's variables as plain values; `tools` and `documents` are None if not given."""
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


class _NamedTemplate:
    """A template with the texts of the model's special tokens."""

    def __init__(self, source: str, texts: Mapping[str, str]) -> None:
        self._template = Template(source)
        self._texts = texts
        self._found: dict[bool, bool] = {}
        self.forms = ContentForms(source, lambda chat: self._run(chat, _settings({})))

    def render(self, chat: Conversation, settings: Mapping[str, Any]) -> str:
        """The text. If the template fails with arguments as objects, it gets them as JSON text; if
        it fails without a content, an empty one."""
        read, spelled = with_arguments(chat)
        if spelled and self._writes_objects(settings):
            read = chat
        ways = (change(form) for form in (read, chat) for change in (list, with_contents))
        return self._first_of(ways, settings)

    def _first_of(self, forms: Iterable[Conversation], settings: Mapping[str, Any]) -> str:
        """The text of the first form that does not fail; else the first form's ValueError."""
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
        """Whether the template writes arguments that are objects in Python's spelling, found by
        trying: a real message may contain such text itself."""
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
"""The tag that transformers uses: some templates know it."""


def _found_tag(text: str) -> int:
    """Where the last tag begins that is not text of a message; -1 if there is none."""
    tag = _TAG.strip()
    at = text.rfind(tag)
    while at >= 0 and 0 in flags(text[at : at + len(tag)]):
        at = text.rfind(tag, 0, at)
    return at


def _tagged(message: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(the message with a tag behind its last text, that text)."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": join([content, _TAG])}, content
    parts = list(content) if isinstance(content, list) else []
    for index, part in reversed([*enumerate(parts)]):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            parts[index] = {**part, "text": join([part["text"], _TAG])}
            return {**message, "content": parts}, part["text"]
    raise ValueError("continue_final_message: the last message has no text to continue")


# --- parts of messages that count as the template's -------------------------------------------


class _MarkupMarker:
    """Marks the parts of messages that may become markup: roles, types of parts, and in assistant
    messages the model's markup that is not special."""

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


class _Rendered(NamedTuple):
    """A rendered text; `own` has 1 for each character of the template's, 0 for a message's."""

    text: str
    own: bytes

    def is_ours(self, tokenizer: Tokenizer, span: Span) -> bool:
        """Whether a token is markup, and all of it is the template's."""
        if span.id not in tokenizer.added:
            return False
        start, end = span.start, span.end
        if (at := self.text.find(tokenizer.added[span.id], start, end)) >= 0:
            start, end = at, at + len(tokenizer.added[span.id])  # without spaces that it swallowed
        return 0 not in self.own[start:end]

    def first_markup(self, tokenizer: Tokenizer, begin: int, end: int) -> Span | None:
        """The first markup inside the template's characters of a part of the text."""
        for run in re.finditer(b"\x01+", self.own[begin:end]):
            at = begin + run.start()
            for span in tokenizer.encode_spans(self.text[at : begin + run.end()]):
                if span.id in tokenizer.added:
                    return Span(span.id, at + span.start, at + span.end)
        return None


def _ids_of(
    tokenizer: Tokenizer, spans: list[Span], shown: _Rendered, limit: int | None
) -> list[int]:
    """The ids of `spans`, with every stretch that has forged markup encoded as plain text.

    A stretch runs from one markup token of the template's to the next. The tokenizer splits there
    anyway, so nothing around a stretch changes.
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
            ids += _encode_stretch(tokenizer, shown, Span(-1, begin, span.start), forged, limit)
        else:
            ids += [inner.id for inner in stretch]
        stretch, begin = [], span.end
        if span.id >= 0:
            ids.append(span.id)
    return ids


def _encode_stretch(
    tokenizer: Tokenizer, shown: _Rendered, stretch: Span, forged: list[Span], limit: int | None
) -> list[int]:
    """The ids of a stretch as plain text, but for the template's markup inside forged markup: a
    message ends in "of" before "<|end|>", and "of<|end|>" is a token, too."""
    ids: list[int] = []
    _, begin, end = stretch
    if any(1 in shown.own[span.start : span.end] for span in forged):
        while (hidden := shown.first_markup(tokenizer, begin, end)) is not None:
            ids += tokenizer.encode_plain(shown.text[begin : hidden.start], limit)
            ids.append(hidden.id)
            begin = hidden.end
    return [*ids, *tokenizer.encode_plain(shown.text[begin:end], limit)]
