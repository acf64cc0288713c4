"""Written: strings that remember which of their characters a chat template wrote itself.

A plain str holds none of them: text of messages. What an operation here does not follow comes out
as a plain str, so that text which may be a message's is never taken for the template's.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Range = tuple[int, int]


class Written(str):
    """A string of which the characters in `ranges`, [start, end) in order, are the template's."""

    __slots__ = ("_ranges",)
    _ranges: tuple[Range, ...]

    def __str__(self) -> str:
        return self

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> str:
        text = super().__getitem__(key)
        if not isinstance(key, slice):
            at = key.__index__()
            key = slice(at, at + 1 or None)
        start, stop, step = key.indices(len(self))
        if step == 1:
            return marked(text, _between(self._ranges, start, stop))
        return marked(text, (match.span() for match in re.finditer(b"\x01+", flags(self)[key])))


def _between(parts: tuple[Range, ...], start: int, stop: int) -> Iterator[Range]:
    """What of `parts` lies in [start, stop), counted from start."""
    index = max(bisect_left(parts, (start, start)) - 1, 0)  # the one before may reach into it
    while index < len(parts) and parts[index][0] < stop:
        first, last = parts[index]
        if last > start:
            yield max(first, start) - start, min(last, stop) - start
        index += 1


def written(text: str) -> str:
    """`text`, all of it the template's."""
    return marked(text, [(0, len(text))])


def ranges(text: str) -> tuple[Range, ...]:
    """The parts [start, end) of `text` that are the template's."""
    return text._ranges if isinstance(text, Written) else ()


def is_whole(text: str) -> bool:
    """Whether all of `text` is the template's, and there is any."""
    return ranges(text) == ((0, len(text)),)


def flags(text: str) -> bytes:
    """One byte for each character: 1 where it is the template's."""
    found = bytearray(len(text))
    for start, end in ranges(text):
        found[start:end] = b"\x01" * (end - start)
    return bytes(found)


def marked(text: str, parts: Iterable[Range]) -> str:
    """`text` with the characters in `parts` as the template's; parts are in order."""
    merged: list[Range] = []
    for start, end in parts:
        if start >= end:
            continue
        if merged and merged[-1][1] >= start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    if not merged:
        return str.__str__(text)
    made = Written(text)
    made._ranges = tuple(merged)
    return made


# --- operations of str -----------------------------------------------------------------------


def join(pieces: Iterable[str], separator: str = "") -> str:
    """`separator.join(pieces)`."""
    pieces = list(pieces)
    parts: list[Range] = []
    at = 0
    for index, piece in enumerate(pieces):
        if index and separator:
            parts += [(at + a, at + b) for a, b in ranges(separator)]
            at += len(separator)
        parts += [(at + a, at + b) for a, b in ranges(piece)]
        at += len(piece)
    return marked(str.join(separator, pieces), parts)


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
    if not ranges(text):
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
    if not ranges(text):
        return str.__str__(str.replace(text, old, str.__str__(new), count))
    if is_whole(text) and (not new or is_whole(new)):
        return written(str.replace(text, old, new, count))
    pieces, at, own = [], 0, flags(text)
    plain = str.__str__(new)
    for start in _found(text, old, count):
        end = start + len(old)
        pieces += [text[at:start], plain if 0 in own[start:end] or not old else new]
        at = end
    return join([*pieces, text[at:]])


def _found(text: str, old: str, count: int) -> Iterator[int]:
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
    return marked(result, ranges(text)) if len(result) == len(text) else result


def repeat(text: str, count: int) -> str:
    """`text * count`."""
    if is_whole(text):
        return written(str.__mul__(text, count))
    return join([text] * count)


def indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """jinja2's filter `indent`."""
    space = written(" " * width) if isinstance(width, int) else width
    newline = written("\n")
    lines = splitlines(join([text, newline]))
    rest = [join([space, line]) if line or blank else line for line in lines[1:]]
    return join([join([space, lines[0]]) if first else lines[0], *rest], newline)


# --- text with other text's spelling inside ---------------------------------------------------

_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_REPR_STRING = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)


def to_json(value: Any, **options: Any) -> str:
    """`json.dumps(value, **options)`: all of it the template's but what message text spells."""
    text = json.dumps(value, **options)
    ascii_only = options.get("ensure_ascii", True)

    def inner_length(part: str, quote: str) -> int:
        return len(json.dumps(part, ensure_ascii=ascii_only)) - 2

    strings = _strings(value, bool(options.get("sort_keys")), json_keys=True)
    return _spelled(text, _JSON_STRING, strings, inner_length)


def to_repr(value: Any) -> str:
    """`str(value)` of lists, tuples and dicts: the template's but what message text spells."""

    def inner_length(part: str, quote: str) -> int:
        quotes = part.count("'")
        return len(repr(part.replace("'", ""))) - 2 + quotes * (2 if quote == "'" else 1)

    return _spelled(str(value), _REPR_STRING, _strings(value), inner_length)


def _spelled(
    text: str, literal: re.Pattern[str], strings: Iterator[str], length: Callable[[str, str], int]
) -> str:
    """`text`, in which each match of `literal` spells the next of `strings`, as what wrote it."""
    parts: list[Range] = []
    end = 0
    for match in literal.finditer(text):
        string = next(strings, "")
        at = match.start() + 1
        parts.append((end, at))
        done = 0
        for start, stop in ranges(string):
            at += length(str.__getitem__(string, slice(done, start)), match[0][0])
            size = length(str.__getitem__(string, slice(start, stop)), match[0][0])
            parts.append((at, at + size))
            at, done = at + size, stop
        end = match.end() - 1
    return marked(text, [*parts, (end, len(text))])


def _strings(value: Any, sort_keys: bool = False, json_keys: bool = False) -> Iterator[str]:
    """Every string inside a value, keys too, in the order in which it is written out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value) if sort_keys else value:
            if isinstance(key, str) or json_keys:
                yield key if isinstance(key, str) else ""
            yield from _strings(value[key], sort_keys, json_keys)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner, sort_keys, json_keys)
