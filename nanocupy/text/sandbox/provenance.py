"""Written: strings that remember which of their characters a chat template wrote itself.

A plain str holds none of them: text of messages. What an operation here does not follow comes out
as a plain str, so that text which may be a message's is never taken for the template's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

_OURS = b"\x01"
_RUN = re.compile(b"\x00+|\x01+")
_MOST_RUNS = 1 << 12


class Written(str):
    """A string with one byte for each character: 1 where it is the template's."""

    __slots__ = ("_flags",)
    _flags: bytes

    def __str__(self) -> str:
        return self

    def __iter__(self) -> Iterator[str]:
        for letter, ours in zip(super().__iter__(), self._flags, strict=True):
            yield written(letter) if ours else letter

    def __getitem__(self, key: Any) -> str:
        text = super().__getitem__(key)
        if isinstance(key, slice):
            return flagged(text, self._flags[key])
        return written(text) if self._flags[key] else text


class Safe(Written):
    """A string that `safe` or `escape` made: what is added to it is escaped, as jinja2 does."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> str:
        return safe(super().__getitem__(key))


def safe(text: str) -> str:
    """`text` as one that is escaped already."""
    made = Safe(text)
    made._flags = flags(text)
    return made


def flags(text: str) -> bytes:
    """One byte for each character: 1 where it is the template's."""
    return text._flags if isinstance(text, Written) else bytes(len(text))


def flagged(text: str, of_letters: bytes) -> str:
    """`text`, with these as its flags."""
    if 1 not in of_letters:
        return str.__str__(text)
    made = Written(text)
    made._flags = of_letters
    return made


def written(text: str) -> str:
    """`text`, all of it the template's."""
    return _constant(str.__str__(text)) if len(text) < 100 else flagged(text, _OURS * len(text))


@lru_cache(1024)
def _constant(text: str) -> str:
    return flagged(text, _OURS * len(text))


def marked(text: str, parts: Iterable[tuple[int, int]]) -> str:
    """`text` with the characters in `parts`, each [start, end), as the template's."""
    found = bytearray(len(text))
    for start, end in parts:
        found[start:end] = _OURS * (end - start)
    return flagged(text, bytes(found))


def is_whole(text: str) -> bool:
    """Whether all of `text` is the template's, and there is any."""
    return isinstance(text, Written) and 0 not in text._flags


# --- operations of str -----------------------------------------------------------------------


def join(pieces: Iterable[str], separator: str = "") -> str:
    """`separator.join(pieces)`."""
    pieces = list(pieces)
    text = str.join(separator, pieces)
    if not isinstance(separator, Written) and not any(isinstance(p, Written) for p in pieces):
        return text
    return flagged(text, flags(separator).join(map(flags, pieces)))


def strip(text: str, chars: str | None = None) -> str:
    """`text.strip(chars)`."""
    return lstrip(rstrip(text, chars), chars)


def lstrip(text: str, chars: str | None = None) -> str:
    """`text.lstrip(chars)`."""
    return text[len(text) - len(str.lstrip(text, chars)) :]


def rstrip(text: str, chars: str | None = None) -> str:
    """`text.rstrip(chars)`."""
    return text[: len(str.rstrip(text, chars))]


def removeprefix(text: str, prefix: str) -> str:
    """`text.removeprefix(prefix)`."""
    return text[len(prefix) :] if str.startswith(text, prefix) else text


def removesuffix(text: str, suffix: str) -> str:
    """`text.removesuffix(suffix)`."""
    return text[: len(text) - len(suffix)] if suffix and str.endswith(text, suffix) else text


def split(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    """`text.split(sep, maxsplit)`."""
    return _cut(text, str.split(text, sep, maxsplit), sep)


def rsplit(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    """`text.rsplit(sep, maxsplit)`."""
    return _cut(text, str.rsplit(text, sep, maxsplit), sep)


def splitlines(text: str, keepends: bool = False) -> list[str]:
    """`text.splitlines(keepends)`."""
    return _cut(text, str.splitlines(text, keepends), None)


def partition(text: str, sep: str) -> tuple[str, ...]:
    """`text.partition(sep)`."""
    return tuple(_cut(text, list(str.partition(text, sep)), ""))


def rpartition(text: str, sep: str) -> tuple[str, ...]:
    """`text.rpartition(sep)`."""
    return tuple(_cut(text, list(str.rpartition(text, sep)), ""))


def _cut(text: str, pieces: list[str], sep: str | None) -> list[str]:
    """`pieces` of `text` as slices of it. Between two is `sep`; None: something no piece holds."""
    if not isinstance(text, Written):
        return pieces
    found, at = [], 0
    for piece in pieces:
        start = str.index(text, piece, at) if sep is None else at
        found.append(text[start : start + len(piece)])
        at = start + len(piece) + len(sep or "")
    return found


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    """`text.replace(old, new, count)`.

    What stands for a message's text is a message's, whoever spells it: else messages could make
    markup of what a template replaces.
    """
    if not isinstance(text, Written) and (old or not isinstance(new, Written)):
        return str.__str__(str.replace(text, old, new, count))
    if is_whole(text) and (not new or is_whole(new)):
        return written(str.replace(text, old, new, count))
    plain, own = str.__str__(new), flags(text)
    pieces, at = [], 0
    for start in _places(text, old, count):
        end = start + len(old)
        pieces += [text[at:start], plain if 0 in own[start:end] else new]
        at = end
    return join([*pieces, text[at:]])


def _places(text: str, old: str, count: int) -> Iterator[int]:
    """Where `old` stands in `text`, one behind the other, at most `count` of them."""
    start = 0
    while count != 0 and (start := str.find(text, old, start)) >= 0:
        yield start
        start += len(old) or 1
        count -= 1


def mapped(text: str, result: str) -> str:
    """`result`, which is `text` letter by letter in another case.

    Where letters became several ("ß" to "SS"), nothing of it is taken for the template's.
    """
    return flagged(result, flags(text)) if len(result) == len(text) else str.__str__(result)


def repeat(text: str, count: int) -> str:
    """`text * count`."""
    return flagged(str.__mul__(text, count), flags(text) * count)


def indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """jinja2's filter `indent`."""
    space = written(" " * width) if isinstance(width, int) else width
    newline = written("\n")
    lines = splitlines(join([text, newline]))
    rest = [join([space, line]) if line or blank else line for line in lines[1:]]
    return join([join([space, lines[0]]) if first else lines[0], *rest], newline)


# --- text with other text's spelling inside ---------------------------------------------------


def to_json(value: Any, **options: Any) -> str:
    """`json.dumps(value, **options)`: all of it the template's but what message text spells."""
    text = json.dumps(value, **options)
    between = (options.get("indent"), *(options.get("separators") or ()))
    if any(isinstance(s, str) and s and ('"' in s or not is_whole(s)) for s in between):
        return text  # whose each part is cannot be told
    ascii_only = options.get("ensure_ascii", True)

    def spell(part: str) -> str:
        return json.dumps(part, ensure_ascii=ascii_only)

    def length(part: str, quote: str) -> int:
        return len(spell(part)) - 2

    strings = _strings(value, bool(options.get("sort_keys")), _json_key)
    return _spelled(text, strings, spell, length)


def to_repr(value: Any) -> str:
    """`str(value)` of lists, tuples and dicts: the template's but what message text spells."""

    def length(part: str, quote: str) -> int:
        quotes = part.count("'")
        return len(repr(part.replace("'", ""))) - 2 + quotes * (2 if quote == "'" else 1)

    return _spelled(str(value), _strings(value), repr, length)


def _spelled(
    text: str,
    strings: Iterator[str],
    spell: Callable[[str], str],
    length: Callable[[str, str], int],
) -> str:
    """`text`, the template's but what its `strings` spell; there is no other quote in it."""
    found = bytearray(_OURS) * len(text)
    at = 0
    for string in strings:
        shown = spell(string)
        at = text.find(shown[0], at)
        if at < 0 or not text.startswith(shown, at):
            return text
        found[at + 1 : at + len(shown) - 1] = _inside(string, shown, length)
        at += len(shown)
    return flagged(text, bytes(found))


def _inside(string: str, shown: str, length: Callable[[str, str], int]) -> bytes:
    """The flags of what is between the quotes where `string` is spelled as `shown`."""
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
    """Every string inside a value in the order in which it is written out; `key_text` makes strings
    of keys that are none."""
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
