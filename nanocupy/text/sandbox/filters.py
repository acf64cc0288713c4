"""The filters that templates may use: jinja2's, on metered values."""

from __future__ import annotations

import re
from functools import wraps
from typing import Any

from jinja2 import pass_environment, pass_eval_context
from jinja2.filters import FILTERS, ignore_case, make_attrgetter
from jinja2.runtime import Undefined

from nanocupy.text.sandbox import provenance
from nanocupy.text.sandbox.formats import percent
from nanocupy.text.sandbox.metering import (
    MAX_PATH,
    MAX_WIDTH,
    LimitError,
    budget,
    check_widths,
    checked_key,
)
from nanocupy.text.sandbox.methods import TEXT_METHODS, count_lines, join, replace
from nanocupy.text.sandbox.provenance import Safe, template_text
from nanocupy.text.sandbox.values import Function, check_bits, computed, to_text


def on_text(function: Function) -> Function:
    """A filter that converts its value to text first."""

    def on_text(value: Any, *args: Any, **kwargs: Any) -> Any:
        return function(to_text(value), *args, **kwargs)

    return on_text


def _on_list(name: str) -> Function:
    """jinja2's filter, on a metered list."""
    original = FILTERS[name]
    at = 1 if hasattr(original, "jinja_pass_arg") else 0

    @wraps(original)
    def on_list(*args: Any, **kwargs: Any) -> Any:
        given = list(args)
        if isinstance(given[at], dict):
            budget().weigh(given[at])
        elif given[at] is not None and not isinstance(given[at], Undefined):
            given[at] = budget().make_list(given[at])
        said = [*given[at + 1 :], *kwargs.values()]
        check_widths(*(said if name in ("batch", "slice") else ()))
        if name in _NAMED and said and not isinstance(said[0], (str, int)):
            raise TypeError(f"{name} wants a name, got a {type(said[0]).__name__}")
        paths = [kwargs["attribute"]] if "attribute" in kwargs else []
        paths += [] if name in _BY_FILTER else said
        steps = max([1, *map(_path_length, paths)])
        budget().spend(items=_compared_items(given[at], steps) if name in _COMPARING else 0)
        return original(*given, **kwargs)

    return on_list


def _path_length(path: Any) -> int:
    """The number of parts of an attribute such as "function.name,type"; 0 for other values."""
    parts = len(re.split("[.,]", path, maxsplit=MAX_PATH)) if isinstance(path, str) else 0
    if parts > MAX_PATH or (isinstance(path, str) and len(path) > MAX_WIDTH):
        raise LimitError("an attribute is too long")
    return parts


def _compared_items(values: Any, steps: int) -> int:
    """The cost of sorting, in items."""
    return len(values) * max(steps, len(values).bit_length()) // 4


@pass_environment
def _unique(
    environment: Any, value: Any, case_sensitive: bool = False, attribute: Any = None
) -> Any:
    _path_length(attribute)
    case = None if case_sensitive else ignore_case
    key_of = make_attrgetter(environment, attribute, postprocess=case)
    found: dict[Any, Any] = {}
    for item in budget().make_list(value):
        budget().check_time()
        found.setdefault(checked_key(key_of(item)), item)
    return budget().make_list(found.values())


def _listed(value: Any) -> Any:
    return budget().make_list(value)


def _reversed(value: Any) -> Any:
    if isinstance(value, str):
        budget().charge(len(value))
        return value[::-1]
    return budget().make_list(list(budget().make_list(value))[::-1])


@pass_environment
def _join_filter(environment: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        _path_length(attribute)
        value = map(make_attrgetter(environment, attribute), budget().make_list(value))
    return join(to_text(d), [to_text(item) for item in budget().make_list(value)])


@pass_eval_context
def _sum(context: Any, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise TypeError("sum is for numbers")
    _path_length(attribute)
    values = budget().make_list(value)
    return FILTERS["sum"](context.environment, values, attribute, start)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text, space = to_text(value), width if isinstance(width, str) else " " * min(width, MAX_WIDTH)
    check_widths(width if isinstance(width, int) else 0)
    lines = count_lines(text)
    budget().charge(len(text) + lines * len(space), 2 * lines)
    space = space if isinstance(width, str) else template_text(space)
    return provenance.indent(text, space, first, blank)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it; jinja2's own filter would escape HTML."""
    check_widths(indent, len(indent) if isinstance(indent, str) else 0)
    check_widths(*map(len, separators or ()))
    weight = budget().weigh(value)
    width = (len(indent) if isinstance(indent, str) else indent or 0) * weight.depth
    width += sum(map(len, separators or ()))
    budget().charge(2 * weight.letters + weight.items * (width + 4), weight.items)
    options = {"ensure_ascii": bool(ensure_ascii), "indent": indent, "separators": separators}
    return provenance.to_json(value, sort_keys=bool(sort_keys), **options)


def _words(name: str) -> Function:
    def words(value: Any) -> Any:
        text = to_text(value)
        budget().charge(3 * len(text), len(text) // 4)
        result = FILTERS[name](str.__str__(text))
        return provenance.mapped(text, result) if isinstance(result, str) else result

    return words


_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"}


def escape(value: Any) -> str:
    """Escape text for HTML, unless it is `Safe`."""
    text = to_text(value)
    return text if isinstance(text, Safe) else _escaped(text)


def _escaped(text: str) -> str:
    for letter, entity in _ENTITIES.items():
        text = replace(text, letter, entity)
    return provenance.safe(text)


def _escaped_again(value: Any) -> str:
    text = to_text(value)
    return _escaped(provenance.flagged(str.__str__(text), provenance.flags(text)))


def _int(value: Any, default: Any = 0, base: Any = 10) -> Any:
    result = FILTERS["int"](value, default, base)
    if isinstance(result, int):
        check_bits(result.bit_length())
    return result


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    check_widths(precision)
    return computed(lambda left, _: FILTERS["round"](left, precision, method), value, 0)


def _replace_filter(value: Any, old: Any, new: Any, count: Any = None) -> str:
    return replace(to_text(value), to_text(old), to_text(new), -1 if count is None else count)


@pass_environment
def _attr(environment: Any, value: Any, name: Any) -> Any:
    if not isinstance(name, str):
        raise TypeError(f"attr wants a name, got a {type(name).__name__}")
    return FILTERS["attr"](environment, value, name)


_LISTS = ("sort", "min", "max", "map", "select", "reject", "selectattr", "rejectattr")
_NAMED = ("map", "select", "reject", "selectattr", "rejectattr", "groupby")
_BY_FILTER = ("map", "select", "reject", "batch", "slice")
_COMPARING = ("sort", "groupby", "dictsort", "min", "max")

FILTER_TABLE: dict[str, Function] = {
    **{name: FILTERS[name] for name in ("default", "d", "length", "count", "items")},
    **{name: FILTERS[name] for name in ("abs", "float", "first", "last")},
    **{name: _on_list(name) for name in (*_LISTS, "groupby", "dictsort", "batch", "slice")},
    **{name: on_text(TEXT_METHODS[name]) for name in ("upper", "lower", "capitalize")},
    "trim": on_text(TEXT_METHODS["strip"]),
    "replace": _replace_filter,
    "attr": _attr,
    "int": _int,
    "unique": _unique,
    "title": _words("title"),
    "wordcount": _words("wordcount"),
    "string": to_text,
    "list": _listed,
    "reverse": _reversed,
    "join": _join_filter,
    "sum": _sum,
    "indent": _indent,
    "tojson": _to_json,
    "format": on_text(lambda text, *args, **kwargs: percent(text, kwargs or args)),
    "round": _round,
    "escape": escape,
    "e": escape,
    "forceescape": _escaped_again,
    "safe": lambda value: provenance.safe(to_text(value)),
}
