"""Detokenizer: token by token to text, in whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from nanocupy.text.tokenizer import Tokenizer

_HALF = "\ufffd"
_CONTEXT = 6  # tokens of the prompt on which the first token's spacing may depend
_LONGEST = 16  # tokens to wait for a whole character, which has at most 4 bytes


class _State(Protocol):
    def feed(self, token_id: int) -> str: ...
    def finish(self) -> str: ...


class Detokenizer:
    """The text of an answer while its tokens arrive. Special tokens have no text.

    For byte-level vocabularies, what `feed` and `finish` return is `tokenizer.decode(ids)`, in
    parts. For others (sentencepiece) it is what `ids` add to the decoded prompt, if their bytes
    make whole characters. An id below 0 is a ValueError.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = ()) -> None:
        self._state: _State = (
            _Bytes(tokenizer) if tokenizer.byte_level else _Window(tokenizer, prompt_ids)
        )

    def feed(self, token_id: int) -> str:
        """The whole characters that this token completes; often "" or a word."""
        return self._state.feed(token_id)

    def finish(self) -> str:
        """The rest, when no token follows: half a character becomes U+FFFD."""
        return self._state.finish()


class _Bytes:
    """Byte-level tokens are bytes: decode UTF-8 as it arrives."""

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
    """Other tokens depend on those before them: decode a window, and return what is new."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt_ids[-_CONTEXT:])
        self._given = len(self._ids)  # tokens whose text was returned

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
        if text:  # it has whole characters only: the window can begin with it
            self._ids = self._ids[self._given :]
            self._given = len(self._ids)
        return text
