"""Detokenizer: token by token to text, without ever giving out half a character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from nanocupy.text.tokenizer import Tokenizer

_HALF = "\ufffd"
_CONTEXT = 6  # tokens of the prompt that a first token's spacing may depend on
_LONGEST = 16  # tokens that wait for a character to be whole; one has at most 4 bytes


class _State(Protocol):
    def feed(self, token_id: int) -> str: ...
    def finish(self) -> str: ...


class Detokenizer:
    """The text of an answer while its tokens arrive. Special tokens have none.

    For byte-level vocabularies all that `feed` and `finish` return, joined, is
    `tokenizer.decode(ids)`. For others (sentencepiece) it is what `ids` add to the decoded
    prompt, as long as bytes make whole characters. Errors (an id below 0) are ValueErrors of this
    object alone.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = ()) -> None:
        self._state: _State = (
            _Bytes(tokenizer) if tokenizer.byte_level else _Window(tokenizer, prompt_ids)
        )

    def feed(self, token_id: int) -> str:
        """The whole characters that this token completes; often "" or a word."""
        return self._state.feed(token_id)

    def finish(self) -> str:
        """What is left once no token follows: half a character shows as U+FFFD."""
        return self._state.finish()


class _Bytes:
    """Byte-level tokens are bytes, so text is UTF-8 decoded as it comes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        if token_id in self._tokenizer.special_ids:
            return ""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class _Window:
    """Other tokens depend on what stands before them: decode a window, give out what is new."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt_ids[-_CONTEXT:])
        self._given = len(self._ids)  # tokens whose text has been given out

    def feed(self, token_id: int) -> str:
        if token_id in self._tokenizer.special_ids:
            return ""
        self._ids.append(token_id)
        text = self._new()
        if text.endswith(_HALF) and len(self._ids) - self._given < _LONGEST:
            return ""
        return self._give(text)

    def finish(self) -> str:
        return self._give(self._new())

    def _new(self) -> str:
        before = self._tokenizer.decode(self._ids[: self._given])
        return self._tokenizer.decode(self._ids)[len(before) :]

    def _give(self, text: str) -> str:
        if text:  # what was just given out begins and ends with whole characters: keep only that
            self._ids = self._ids[self._given :]
            self._given = len(self._ids)
        return text
