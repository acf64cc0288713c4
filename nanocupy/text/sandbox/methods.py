"""The methods of str, dict and list that templates may call."""

from __future__ import annotations

from functools import partial
from typing import Any

from jinja2.exceptions import SecurityError

from nanocupy.text.sandbox import provenance as own
from nanocupy.text.sandbox.budget import budget
from nanocupy.text.sandbox.provenance import Written
from nanocupy.text.sandbox.values import Function, kind_of


def _split(text: str, sep: str | None = None, maxsplit: int = -1, right: bool = False) -> Any:
    most = budget().most_items
    limit = most if maxsplit < 0 or maxsplit > most else maxsplit
    if right and sep:
        budget().check_steps(len(text) * len(sep))
    budget().charge(len(text), min(str.count(text, sep), limit) if sep else 0)
    pieces = (own.rsplit if right else own.split)(text, sep, limit)
    if len(pieces) > most:
        raise SecurityError("a text or list is too long")
    return budget().items_of(pieces)


def _splitlines(text: str, keepends: bool = False) -> Any:
    budget().charge(len(text), lines_of(text))
    return budget().items_of(own.splitlines(text, keepends))


def lines_of(text: str) -> int:
    return 1 + sum(str.count(text, end) for end in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = str.count(text, old)
    found = min(found, count) if count >= 0 else found
    grown = found * max(0, len(new) - len(old))
    followed = isinstance(text, Written) or isinstance(new, Written)
    budget().charge(len(text) + grown, found if followed else 0)
    return own.replace(text, old, new, count)


def join(separator: str, values: Any) -> str:
    pieces = budget().items_of(values)
    if wrong := [piece for piece in pieces if not isinstance(piece, str)]:
        raise TypeError(f"join wants text, got {kind_of(wrong[0])}")
    budget().charge(budget().weigh(pieces).letters + len(separator) * len(pieces))
    return own.join(pieces, separator)


def stripped(function: Function) -> Function:
    """Takes `len(text) * len(chars)` comparisons, for nothing sorts the characters."""

    def stripped(text: str, chars: str | None = None) -> str:
        chars = "".join(dict.fromkeys(str.__str__(chars))) if isinstance(chars, str) else chars
        budget().check_steps(len(text) * len(chars or ""))
        return function(text, chars)

    return stripped


def _searching(method: str) -> Function:
    """From the right, it takes `len(text) * len(part)` comparisons."""

    def search(text: str, part: Any, *args: Any) -> Any:
        backwards = method.startswith("r") and isinstance(part, str)
        budget().check_steps(len(text) * len(part) if backwards else 0)
        return getattr(str, method)(text, part, *args)

    return search


def _rpartition(text: str, sep: str) -> Any:
    budget().check_steps(len(text) * len(sep))
    return own.rpartition(text, sep)


def _kind(method: str) -> Function:
    def kind(text: str) -> bool:
        budget().check_time()
        return bool(getattr(str, method)(text))

    return kind


def _cased(method: str) -> Function:
    def cased(text: str) -> str:
        budget().charge(len(text) * (1 if text.isascii() else 3))
        return own.mapped(text, str.__str__(getattr(str, method)(text)))

    return cased


_CASES = ("upper", "lower", "title", "capitalize", "swapcase", "casefold")
_FOUND = ("startswith", "endswith", "find", "rfind", "index", "rindex", "count")
_KINDS = ("alpha", "alnum", "digit", "numeric", "decimal", "space", "upper", "lower", "title")

TEXT_METHODS: dict[str, Function] = {
    "strip": stripped(own.strip),
    "lstrip": stripped(own.lstrip),
    "rstrip": stripped(own.rstrip),
    "removeprefix": own.removeprefix,
    "removesuffix": own.removesuffix,
    "partition": own.partition,
    "rpartition": _rpartition,
    "split": _split,
    "rsplit": partial(_split, right=True),
    "splitlines": _splitlines,
    "replace": replace,
    "join": join,
    **{name: _cased(name) for name in _CASES},
    **{name: _searching(name) for name in _FOUND},
    **{f"is{name}": _kind(f"is{name}") for name in _KINDS},
}
METHODS: dict[type, tuple[str, ...]] = {
    dict: ("items", "keys", "values", "get"),
    list: ("index", "count"),
    tuple: ("index", "count"),
}
