"""Tokenizer: text to token ids and back. The one place that imports tokenizers."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from nanocupy.files import TOKENIZER_BYTES, checked, is_there
from nanocupy.text.added_tokens import add_named_tokens
from nanocupy.text.chunks import split_text
from nanocupy.text.lower_bound import LowerBound, max_growth, parts
from nanocupy.text.special_tokens import end_ids, end_texts, special_token_texts

MAX_ID = 2**32 - 1
_SHORT = 1 << 12  # characters that are encoded in a millisecond
_MOST_GROWTH = 256  # letters that a tokenizer's own replacements may make of one
_LARGE = 1 << 18  # characters whose encoding leaves much memory behind


class Span(NamedTuple):
    """A token and the characters [start, end) of the text that it stands for."""

    id: int
    start: int
    end: int


class TooLongError(ValueError):
    """A text has more than `limit` tokens: `num_tokens`, or with `least` at least so many."""

    def __init__(self, num_tokens: int, limit: int, least: bool) -> None:
        count = f"{'at least ' if least else ''}{num_tokens}"
        super().__init__(f"the text has {count} tokens, at most {limit} fit")
        self.num_tokens, self.limit, self.least = num_tokens, limit, least

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.num_tokens, self.limit, self.least), self.__dict__


class Tokenizer:
    """The tokenizer.json of a model folder, with tokens named in other files (`added_tokens`).

    Added tokens are the vocabulary's markup: `<|im_start|>`, `<think>`. Special ones are left out
    of decoded text. Every error is a ValueError, and the tokenizer can still be used.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._tokenizer = _load(self.folder / "tokenizer.json")
        self.special_ids = add_named_tokens(self._tokenizer, self.folder)
        added = self._tokenizer.get_added_tokens_decoder()
        # Runs of spaces that some vocabularies add are text, not markup.
        self.added = {i: token.content for i, token in added.items() if token.content.strip()}
        self._texts = special_token_texts(self.folder)
        self._plain: dict[Callable[..., Any], Any] = {}  # made when text first holds markup

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def special_texts(self) -> dict[int, str]:
        """The text of each special token; decoded text leaves them out."""
        return {i: self.added[i] for i in sorted(self.special_ids) if i in self.added}

    @cached_property
    def own_markup(self) -> re.Pattern[str]:
        """A pattern of markup that is not special, such as `<think>`; the longest match first."""
        own = {text for i, text in self.added.items() if i not in self.special_ids}
        return re.compile("|".join(map(re.escape, sorted(own, key=len, reverse=True))) or r"(?!)")

    @cached_property
    def bos_id(self) -> int | None:
        """The token that begins a sequence, if the model has one."""
        return self._named("bos_token")

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token that a file of the model names as the end of an answer, by id or by text."""
        named = (self.id_of(text) for text in end_texts(self.folder))
        return tuple(dict.fromkeys([*end_ids(self.folder), *(i for i in named if i is not None)]))

    def encode(self, text: str, add_special: bool = True, limit: int | None = None) -> list[int]:
        """The ids of `text`, with added tokens recognised.

        Args:
            add_special: put special tokens around it, as the model's tokenizer does (BOS, often).
            limit: raise TooLongError if there are more tokens, as soon as that is known.

        Raises:
            ValueError: `text` has half a surrogate pair, or cannot be encoded.
        """
        if len(_checked(text)) <= _SHORT:
            ids: list[int] = _encode(self._tokenizer, text, add_special).ids
            _check_count(len(ids), limit)
            return ids
        before, after = self._around if add_special else ([], [])
        wrapped = len(before) + len(after)
        return [*before, *self._ids(self._tokenizer, text, limit, wrapped), *after]

    def encode_plain(self, text: str, limit: int | None = None) -> list[int]:
        """The ids of `text` as plain text: what looks like an added token is encoded as letters."""
        ids = self.encode(text, add_special=False, limit=limit)
        if self.added.keys().isdisjoint(ids):
            return ids
        from nanocupy.text.plain_tokenizer import with_hidden_markup, without_markup

        for spelled in (without_markup, with_hidden_markup):
            if self.added.keys().isdisjoint(ids):
                return ids
            plain = self._plain.get(spelled) or spelled(self._tokenizer, self.added)
            self._plain[spelled] = plain
            found = self._ids(plain.tokenizer, text, limit)
            ids = [plain.others.get(i, i) for i in found]
        if not self.added.keys().isdisjoint(ids):
            names = sorted({self.added[i] for i in ids if i in self.added})
            raise ValueError(f"this tokenizer cannot spell {', '.join(names)} as plain text")
        if self._lost(ids, text):
            raise ValueError(
                "this tokenizer cannot spell as plain text what holds one of its added tokens: one "
                "of them is a letter that it has no other token for"
            )
        return ids

    def _lost(self, ids: Sequence[int], text: str) -> bool:
        """Whether part of a text has no token in `ids`. Found only if tokens are bytes."""
        if not self.byte_level or self._tokenizer.normalizer is not None:
            return False
        return self.decode(ids, skip_special=False).lstrip(" ") != text.lstrip(" ")

    def encode_spans(self, text: str, limit: int | None = None) -> list[Span]:
        """The ids of `text`, without special tokens around it, each with its characters."""
        spans: list[Span] = []
        for start, found in self._pieces(self._tokenizer, text, limit, offsets=True):
            ends = zip(found.ids, found.offsets, strict=True)
            new = [Span(i, start + first, start + last) for i, (first, last) in ends]
            spans += _with_space(new, start) if start and text[start - 1] == " " else new
        return spans

    def _ids(self, tokenizer: Any, text: str, limit: int | None, count: int = 0) -> list[int]:
        """The ids of all chunks; `count` tokens are counted already."""
        found = self._pieces(tokenizer, text, limit, count, offsets=False)
        return [i for _, piece in found for i in piece.ids]

    def _pieces(
        self, tokenizer: Any, text: str, limit: int | None, count: int = 0, *, offsets: bool
    ) -> Iterator[tuple[int, Any]]:
        """Yield (start, Encoding) for the chunks of a text. Other threads can run meanwhile."""
        if len(_checked(text)) <= _SHORT:
            found = _encode(tokenizer, text, False)
            _check_count(count + len(found), limit)
            yield 0, found
            return
        if limit is not None:
            _check_count(count + self._bound(text, limit), limit, least=True)
        encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
        for start, piece in split_text(text, lambda part: _encode(tokenizer, part, False).ids):
            with _explained(text):
                [found] = encode([piece], add_special_tokens=False)
            count += len(found)
            _check_count(count, limit, least=True)
            yield start, found
        if len(text) > _LARGE:
            _trim_memory()

    @cached_property
    def _bound(self) -> LowerBound:
        return LowerBound(self._tokenizer, _BYTE_OF)

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens put before and after a sequence."""
        alone, inside = (_encode(self._tokenizer, "a", around).ids for around in (False, True))
        for start in range(len(inside) - len(alone) + 1):
            if inside[start : start + len(alone)] == alone:
                return inside[:start], inside[start + len(alone) :]
        raise ValueError(f"{self.folder}: its post-processor changes what it is put around")

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of `ids`. Ids without a token are skipped; half characters become U+FFFD."""
        if any(not 0 <= i <= MAX_ID for i in ids):
            raise ValueError(f"token ids are from 0 to {MAX_ID}, got {[i for i in ids if i < 0]}")
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name in the vocabulary, or None."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; b"" for an id without a token."""
        if not 0 <= token_id <= MAX_ID:
            raise ValueError(f"token ids are from 0 to {MAX_ID}, got {token_id}")
        name: str | None = self._tokenizer.id_to_token(token_id)
        if name is None:
            return b""
        if self.byte_level:
            return _from_letters(name)
        if token_id in self.added:
            return name.encode()
        if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            return bytes([int(name[3:5], 16)])
        return name.replace("▁", " ").encode()

    def token_text(self, token_id: int) -> str:
        """The text of one token, for display; half characters become U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    @cached_property
    def byte_level(self) -> bool:
        """Whether tokens are sequences of bytes, written as letters."""
        from tokenizers.decoders import ByteLevel

        return isinstance(self._tokenizer.decoder, ByteLevel)

    def _named(self, role: str) -> int | None:
        text = self._texts.get(role)
        return None if text is None else self.id_of(text)


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"text must be a str, got {type(text).__name__}")
    return text


def _with_space(spans: list[Span], start: int) -> list[Span]:
    """Spans of a chunk that begins after a space which belongs to its first token."""
    if not spans:
        return spans
    first, *others = spans
    alone = bool(others) and others[0].start == start
    return [Span(first.id, start - 1, start if alone else first.end), *others]


def _check_count(count: int, limit: int | None, *, least: bool = False) -> None:
    if limit is not None and count > limit:
        raise TooLongError(count, limit, least)


def _encode(tokenizer: Any, text: str, add_special: bool) -> Any:
    """The Encoding of a short text. Holds the GIL."""
    with _explained(_checked(text)):
        return tokenizer.encode(text, add_special_tokens=add_special)


@contextmanager
def _explained(text: str) -> Iterator[None]:
    """Turn tokenizers' errors into ValueErrors."""
    try:
        yield
    except Exception as error:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("the text holds half a surrogate pair, which is no text") from error
        raise ValueError(f"the tokenizer cannot encode this text: {error}") from error


def _load(path: Path) -> Any:
    from tokenizers import Tokenizer as Fast

    if not is_there(path):
        raise ValueError(f"{path} does not exist; a model folder needs its tokenizer.json")
    checked(path, TOKENIZER_BYTES)
    try:
        tokenizer = Fast.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing finer
        raise ValueError(f"{path} is not a tokenizer that can be read: {error}") from error
    for name in ("normalizer", "decoder"):
        if (times := max_growth(parts(getattr(tokenizer, name)))) > _MOST_GROWTH:
            raise ValueError(
                f"{path}: its {name} may make {times:.3g} letters of one, {_MOST_GROWTH} at most "
                "are allowed"
            )
    tokenizer.no_truncation()  # both are for training
    tokenizer.no_padding()
    _trim_memory()
    return tokenizer


def _trim_memory() -> None:
    """Return freed memory to the system, if the C library can: after reading a vocabulary of
    262,144 it is more than half."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


def _letters() -> dict[str, int]:
    """The byte of each of GPT-2's visible letters."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {chr(byte): byte for byte in visible}
    return letters | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTE_OF = _letters()


def _from_letters(name: str) -> bytes:
    """The bytes of a byte-level token; a name with other letters (`<｜User｜>`) is its own text."""
    try:
        return bytes(map(_BYTE_OF.__getitem__, name))
    except KeyError:
        return name.encode()
