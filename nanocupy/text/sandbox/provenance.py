"""TemplateText: strings that remember which of their characters a chat template wrote itself.

A plain str has none of them: it is text of messages. The result of an operation that is not
followed here is a plain str, so text of a message is never taken for the template's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, SupportsIndex

_OURS = b"\x01"
_RUN = re.compile(b"\x00+|\x01+")
_MOST_RUNS = 1 << 12


class TemplateText(str):
    """A string with one byte for each character: 1 where the template wrote it.

    The methods below are those of str, and keep the bytes. All other methods return a plain str.
    """

    __slots__ = ("_flags",)
    _flags: bytes

    def __str__(self) -> str:
        return self

    def __iter__(self) -> Iterator[str]:
        for letter, ours in zip(super().__iter__(), self._flags, strict=True):
            yield template_text(letter) if ours else letter

    def __getitem__(self, key: Any) -> str:
        text = super().__getitem__(key)
        if isinstance(key, slice):
            return flagged(text, self._flags[key])
        return template_text(text) if self._flags[key] else text

    def strip(self, chars: str | None = None, /) -> str:
        return self.rstrip(chars).lstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> str:
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None, /) -> str:
        return self[: len(str.rstrip(self, chars))]

    def removeprefix(self, prefix: str, /) -> str:
        return self[len(prefix) :] if self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> str:
        return self[: len(self) - len(suffix)] if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._slices(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._slices(str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._slices(str.splitlines(self, keepends), None)

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        before, found, after = self._slices(str.partition(self, sep), "")
        return before, found, after

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        before, found, after = self._slices(str.rpartition(self, sep), "")
        return before, found, after

    def _slices(self, pieces: Iterable[str], sep: str | None) -> list[str]:
        """`pieces` as slices of self. Between two is `sep`; None: something no piece contains."""
        found, at = [], 0
        for piece in pieces:
            start = self.index(piece, at) if sep is None else at
            found.append(self[start : start + len(piece)])
            at = start + len(piece) + len(sep or "")
        return found


class Safe(TemplateText):
    """A string that `safe` or `escape` made: what is added to it is escaped, as jinja2 does."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> str:
        return safe(super().__getitem__(key))


def safe(text: str) -> str:
    """`text`, marked as escaped already."""
    made = Safe(text)
    made._flags = flags(text)
    return made


def flags(text: str) -> bytes:
    """One byte for each character: 1 where the template wrote it."""
    return text._flags if isinstance(text, TemplateText) else bytes(len(text))


def flagged(text: str, of_letters: bytes) -> str:
    """`text` with these flags."""
    if 1 not in of_letters:
        return str.__str__(text)
    made = TemplateText(text)
    made._flags = of_letters
    return made


def template_text(text: str) -> str:
    """`text`, all of it the template's."""
    return _constant(str.__str__(text)) if len(text) < 100 else flagged(text, _OURS * len(text))


@lru_cache(1024)
def _constant(text: str) -> str:
    return flagged(text, _OURS * len(text))


def marked(text: str, parts: Iterable[tuple[int, int]]) -> str:
    """`text`, the template's in `parts`, each [start, end)."""
    found = bytearray(len(text))
    for start, end in parts:
        found[start:end] = _OURS * (end - start)
    return flagged(text, bytes(found))


def is_whole(text: str) -> bool:
    """Whether `text` is not empty and all of it is the template's."""
    return isinstance(text, TemplateText) and 0 not in text._flags


# --- operations of str in which either side may be plain --------------------------------------


def join(pieces: Iterable[str], separator: str = "") -> str:
    pieces = list(pieces)
    text = str.join(separator, pieces)
    if not any(isinstance(piece, TemplateText) for piece in (separator, *pieces)):
        return text
    return flagged(text, flags(separator).join(map(flags, pieces)))


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    """`text.replace(old, new, count)`.

    What replaces text of a message is a message's, whoever wrote it: else messages could make
    markup of what a template replaces.
    """
    if not isinstance(text, TemplateText) and (old or not isinstance(new, TemplateText)):
        return str.__str__(str.replace(text, old, new, count))
    if is_whole(text) and (not new or is_whole(new)):
        return template_text(str.replace(text, old, new, count))
    plain, own = str.__str__(new), flags(text)
    pieces, at = [], 0
    for start in _places(text, old, count):
        end = start + len(old)
        pieces += [text[at:start], plain if 0 in own[start:end] else new]
        at = end
    return join([*pieces, text[at:]])


def _places(text: str, old: str, count: int) -> Iterator[int]:
    """Where `old` is in `text`, without overlaps, at most `count` times."""
    start = 0
    while count != 0 and (start := text.find(old, start)) >= 0:
        yield start
        start += len(old) or 1
        count -= 1


def mapped(text: str, result: str) -> str:
    """`result`, which is `text` letter by letter in another case.

    If letters became several ("ß" to "SS"), all of it is taken for a message's.
    """
    return flagged(result, flags(text)) if len(result) == len(text) else str.__str__(result)


def repeat(text: str, count: int) -> str:
    return flagged(str.__mul__(text, count), flags(text) * count)


def indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """jinja2's filter `indent`."""
    space = template_text(" " * width) if isinstance(width, int) else width
    newline = template_text("\n")
    lines = join([text, newline]).splitlines()
    rest = [join([space, line]) if line or blank else line for line in lines[1:]]
    return join([join([space, lines[0]]) if first else lines[0], *rest], newline)


# --- values written out as text ---------------------------------------------------------------


def to_json(value: Any, **options: Any) -> str:
    """`json.dumps(value, **options)`: the template's, but for text of messages in it."""
    text = json.dumps(value, **options)
    between = (options.get("indent"), *(options.get("separators") or ()))
    if any(isinstance(s, str) and s and ('"' in s or not is_whole(s)) for s in between):
        return text  # the parts cannot be told apart
    ascii_only = options.get("ensure_ascii", True)

    def spell(part: str) -> str:
        return json.dumps(part, ensure_ascii=ascii_only)

    def length(part: str, quote: str) -> int:
        return len(spell(part)) - 2

    strings = _strings(value, bool(options.get("sort_keys")), _json_key)
    return _with_strings(text, strings, spell, length)


def to_repr(value: Any) -> str:
    """`str(value)` of lists, tuples and dicts: the template's, but for text of messages in it."""

    def length(part: str, quote: str) -> int:
        quotes = part.count("'")
        return len(repr(part.replace("'", ""))) - 2 + quotes * (2 if quote == "'" else 1)

    return _with_strings(str(value), _strings(value), repr, length)


def _with_strings(
    text: str,
    strings: Iterator[str],
    spell: Callable[[str], str],
    length: Callable[[str, str], int],
) -> str:
    """`text`, the template's but for its `strings`, the only quoted parts in it."""
    found = bytearray(_OURS) * len(text)
    at = 0
    for string in strings:
        shown = spell(string)
        at = text.find(shown[0], at)
        if at < 0 or not text.startswith(shown, at):
            return text
        found[at + 1 : at + len(shown) - 1] = _string_flags(string, shown, length)
        at += len(shown)
    return flagged(text, bytes(found))


def _string_flags(string: str, shown: str, length: Callable[[str, str], int]) -> bytes:
    """The flags of what is between the quotes where `string` is written as `shown`."""
    own = flags(string)
    if len(shown) == len(string) + 2:
        return own
    if 1 not in own or own.count(b"\x01\x00") > _MOST_RUNS:
        return bytes(len(shown) - 2)
    plain = str.__str__(string)
    runs = (match.span() for match in _RUN.finditer(own))
    return b"".join(own[a : a + 1] * length(plain[a:b], shown[0]) for a, b in runs)


def _json_key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps({key: 0})[2:-5]


def _strings(
    value: Any, sort_keys: bool = False, key_text: Callable[[Any], str] | None = None
) -> Iterator[str]:
    """Every string inside a value, in the order of writing; `key_text` makes strings of other
    keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value) if sort_keys else value:
            if isinstance(key, str) or key_text:
                yield key_text(key) if key_text else key
            yield from _strings(value[key], sort_keys, key_text)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner, sort_keys, key_text)
