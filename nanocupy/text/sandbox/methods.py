"""The methods of str, dict and list that templates may call."""

from __future__ import annotations

from functools import partial
from typing import Any

from jinja2.exceptions import SecurityError

from nanocupy.text.sandbox import provenance
from nanocupy.text.sandbox.metering import budget
from nanocupy.text.sandbox.provenance import TemplateText
from nanocupy.text.sandbox.values import Function, kind_of


def _split(method: str, text: str, sep: str | None = None, maxsplit: int = -1) -> Any:
    most = budget().most_items
    limit = most if maxsplit < 0 or maxsplit > most else maxsplit
    if method == "rsplit" and sep:
        budget().check_steps(len(text) * len(sep))
    budget().charge(len(text), min(text.count(sep), limit) if sep else 0)
    pieces = getattr(text, method)(sep, limit)
    if len(pieces) > most:
        raise SecurityError("a text or list is too long")
    return budget().make_list(pieces)


def _splitlines(text: str, keepends: bool = False) -> Any:
    budget().charge(len(text), count_lines(text))
    return budget().make_list(text.splitlines(keepends))


def count_lines(text: str) -> int:
    return 1 + sum(text.count(end) for end in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = str.count(text, old)
    found = min(found, count) if count >= 0 else found
    grown = found * max(0, len(new) - len(old))
    followed = isinstance(text, TemplateText) or isinstance(new, TemplateText)
    budget().charge(len(text) + grown, found if followed else 0)
    return provenance.replace(text, old, new, count)


def join(separator: str, values: Any) -> str:
    pieces = budget().make_list(values)
    if wrong := [piece for piece in pieces if not isinstance(piece, str)]:
        raise TypeError(f"join wants text, got {kind_of(wrong[0])}")
    budget().charge(budget().weigh(pieces).letters + len(separator) * len(pieces))
    return provenance.join(pieces, separator)


def _strip(method: str, text: str, chars: str | None = None) -> Any:
    chars = "".join(dict.fromkeys(str.__str__(chars))) if isinstance(chars, str) else chars
    budget().check_steps(len(text) * len(chars or ""))  # Python does not sort the characters
    return getattr(text, method)(chars)


def _search(method: str, text: str, part: Any, *args: Any) -> Any:
    if method in ("rfind", "rindex", "rpartition") and isinstance(part, str):
        budget().check_steps(len(text) * len(part))  # from the right, each place is compared
    budget().check_time()
    return getattr(text, method)(part, *args)


def _is(method: str, text: str) -> bool:
    budget().check_time()
    return bool(getattr(text, method)())


def _change_case(method: str, text: str) -> str:
    budget().charge(len(text) * (1 if text.isascii() else 3))
    return provenance.mapped(text, str.__str__(getattr(str, method)(text)))


_BY_NAME: dict[Function, tuple[str, ...]] = {
    _split: ("split", "rsplit"),
    _strip: ("strip", "lstrip", "rstrip"),
    _search: (
        *("startswith", "endswith", "find", "rfind", "index", "rindex", "count"),
        *("removeprefix", "removesuffix", "partition", "rpartition"),
    ),
    _is: (
        *("isalpha", "isalnum", "isdigit", "isnumeric", "isdecimal"),
        *("isspace", "isupper", "islower", "istitle"),
    ),
    _change_case: ("upper", "lower", "title", "capitalize", "swapcase", "casefold"),
}
TEXT_METHODS: dict[str, Function] = {
    "splitlines": _splitlines,
    "replace": replace,
    "join": join,
    **{name: partial(call, name) for call, names in _BY_NAME.items() for name in names},
}
METHODS: dict[type, tuple[str, ...]] = {
    dict: ("items", "keys", "values", "get"),
    list: ("index", "count"),
    tuple: ("index", "count"),
}
