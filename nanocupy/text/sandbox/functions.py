"""What chat templates may use: operators, methods, filters, tests and functions, each bounded.

Each gives what jinja2 gives, and follows which characters are the template's own (`written`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial, wraps
from typing import Any

from jinja2 import pass_environment, pass_eval_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.filters import FILTERS
from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedFormatter
from jinja2.tests import TESTS
from jinja2.utils import Namespace
from markupsafe import Markup

from nanocupy.text.sandbox import written as own
from nanocupy.text.sandbox.budget import MAX_BITS, MAX_WIDTH, budget, check_widths
from nanocupy.text.sandbox.written import written

Function = Callable[..., Any]


def to_text(value: Any) -> str:
    """A value as a template writes it out."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (int, float)):
        return written(str(value))
    if isinstance(value, (list, tuple, dict)):
        budget().charge(letters=budget().weigh(value).letters)
        return own.to_repr(value)
    if isinstance(value, Undefined):
        return str(value)
    raise SecurityError(f"a {type(value).__name__} cannot be written out")


def concatenate(values: Any) -> str:
    """`a ~ b ~ ...`, and all that a template has written."""
    pieces = [to_text(value) for value in values]
    budget().charge(letters=sum(map(len, pieces)), items=len(pieces))
    return own.join(pieces)


def _native(method: str, text: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(str, method)(text, *args, **kwargs)


# --- operators -------------------------------------------------------------------------------


def _number(operation: Function, left: Any, right: Any) -> Any:
    for side in (left, right):
        if isinstance(side, Undefined):
            return operation(left, right)  # its own error
        if not isinstance(side, (int, float)):
            raise TypeError(f"arithmetic is for numbers, got {type(side).__name__}")
    return operation(left, right)


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, Markup) or isinstance(right, Markup):  # it escapes the other side
        budget().charge(letters=8 * sum(len(s) for s in (left, right) if isinstance(s, str)))
        return left + right
    if isinstance(left, str) and isinstance(right, str):
        return concatenate((left, right))
    if isinstance(left, list) and isinstance(right, list):
        return budget().items_of([*left, *right])
    if isinstance(left, tuple) and isinstance(right, tuple):
        return tuple(budget().items_of([*left, *right]))
    return _number(operator.add, left, right)


def _multiply(left: Any, right: Any) -> Any:
    for many, count in ((left, right), (right, left)):
        if isinstance(many, str) and isinstance(count, int):
            budget().charge(letters=len(many) * max(count, 0), items=max(count, 0))
            return own.repeat(many, count)
        if isinstance(many, (list, tuple)) and isinstance(count, int):
            budget().charge(items=len(many) * max(count, 0))
            return budget().items_of(many * count)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    return _number(operator.mul, left, right)


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise SecurityError("a number is too large")


def _power(left: Any, right: Any) -> Any:
    if _number(operator.gt, abs(right), 64) or abs(left) > 1 << 32:
        raise SecurityError("a power is too large")
    return operator.pow(left, right)


def _modulo(left: Any, right: Any) -> Any:
    return percent(left, right) if isinstance(left, str) else _number(operator.mod, left, right)


OPERATORS: dict[str, Function] = {
    "+": _add,
    "-": partial(_number, operator.sub),
    "*": _multiply,
    "/": partial(_number, operator.truediv),
    "//": partial(_number, operator.floordiv),
    "%": _modulo,
    "**": _power,
}


# --- formats ---------------------------------------------------------------------------------

_PERCENT = re.compile(r"%(?:\(([^)]*)\))?([#0\- +]*[\d.]*)[hlL]?(.)", re.DOTALL)
_STAR = re.compile(r"%[#0\- +\d.]*\*")


def percent(text: str, values: Any) -> str:
    """`text % values`."""
    check_widths(text)
    if _STAR.search(text):
        raise SecurityError("a width in a format is not a number")
    budget().charge(letters=4 * (len(text) + budget().weigh(values).letters))
    result = str.__mod__(text, values)
    given = iter(values if isinstance(values, tuple) else (values,))
    pieces, end = [], 0
    for match in _PERCENT.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        if match[3] == "%":
            pieces.append(text[end - 1 : end])
            continue
        value = values[match[1]] if match[1] is not None else next(given)
        plain = match[3] == "s" and not match[2]
        pieces.append(to_text(value) if plain else _formatted(match[0], match[1], value))
    return _followed(result, [*pieces, text[end:]])


def _formatted(field: str, name: str | None, value: Any) -> str:
    text = str.__mod__(field, (value,) if name is None else {name: value})
    return written(text) if isinstance(value, (int, float)) else text


def _followed(result: str, pieces: list[str]) -> str:
    """`result`, by the pieces that it should consist of; where it does not, by nobody."""
    followed = own.join(pieces)
    return followed if followed == result else result


def braces(environment: Any, text: str, *args: Any, **kwargs: Any) -> str:
    """`text.format(*args, **kwargs)`."""
    check_widths(text)
    budget().charge(letters=4 * (len(text) + budget().weigh((*args, *kwargs.values())).letters))
    formatter = SandboxedFormatter(environment)
    literal = written if own.is_whole(text) else str
    pieces, index = [], 0
    for before, name, spec, conversion in formatter.parse(text):
        pieces.append(literal(before))
        if name is None:
            continue
        if "{" in (spec or ""):
            raise SecurityError("a width in a format is not a number")
        if name.split(".")[0].split("[")[0] == "":
            name, index = f"{index}{name}", index + 1
        value, _ = formatter.get_field(name, args, kwargs)
        if spec or conversion:
            shown = formatter.format_field(formatter.convert_field(value, conversion), spec or "")
            pieces.append(written(shown) if isinstance(value, (int, float)) else shown)
        else:
            pieces.append(to_text(value))
    return _followed(formatter.vformat(text, args, kwargs), pieces)


# --- methods ---------------------------------------------------------------------------------


def _split(text: str, sep: str | None = None, maxsplit: int = -1, right: bool = False) -> Any:
    most = budget().most_items
    limit = most if maxsplit < 0 or maxsplit > most else maxsplit
    budget().charge(len(text), str.count(text, sep) if sep else 0)
    pieces = (own.rsplit if right else own.split)(text, sep, limit)
    if len(pieces) > most:
        raise SecurityError("a text or list is too long")
    return budget().items_of(pieces)


def _splitlines(text: str, keepends: bool = False) -> Any:
    ends = sum(map(text.count, "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
    budget().charge(len(text), ends + 1)
    return budget().items_of(own.splitlines(text, keepends))


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = str.count(text, old)
    grown = found * max(0, len(new) - len(old))
    budget().charge(len(text) + grown, found if own.ranges(text) or own.ranges(new) else 0)
    return own.replace(text, old, new, count)


def _join(separator: str, values: Any) -> str:
    pieces = budget().items_of(values)
    if wrong := [piece for piece in pieces if not isinstance(piece, str)]:
        raise TypeError(f"join wants text, got {type(wrong[0]).__name__}")
    budget().charge(budget().weigh(pieces).letters + len(separator) * len(pieces))
    return own.join(pieces, separator)


def _cased(method: str) -> Function:
    def cased(text: str) -> str:
        budget().charge(len(text) * (1 if text.isascii() else 3))
        return own.mapped(text, str.__str__(getattr(str, method)(text)))

    return cased


_CASES = ("upper", "lower", "title", "capitalize", "swapcase", "casefold")
_FOUND = ("startswith", "endswith", "find", "rfind", "index", "rindex", "count")
_KINDS = ("alpha", "alnum", "digit", "numeric", "decimal", "space", "upper", "lower", "title")

TEXT_METHODS: dict[str, Function] = {
    "strip": own.strip,
    "lstrip": own.lstrip,
    "rstrip": own.rstrip,
    "removeprefix": own.removeprefix,
    "removesuffix": own.removesuffix,
    "partition": own.partition,
    "rpartition": own.rpartition,
    "split": _split,
    "rsplit": partial(_split, right=True),
    "splitlines": _splitlines,
    "replace": _replace,
    "join": _join,
    **{name: _cased(name) for name in _CASES},
    **{name: partial(_native, name) for name in (*_FOUND, *(f"is{kind}" for kind in _KINDS))},
}
METHODS: dict[type, tuple[str, ...]] = {
    dict: ("items", "keys", "values", "get"),
    list: ("index", "count"),
    tuple: ("index", "count"),
}


# --- filters ---------------------------------------------------------------------------------


def _on_text(function: Function) -> Function:
    """A filter of a method: whatever comes is text."""

    def on_text(value: Any, *args: Any, **kwargs: Any) -> Any:
        return function(to_text(value), *args, **kwargs)

    return on_text


def _on_list(name: str, *numbers: str) -> Function:
    """jinja2's filter, on a list that is paid for."""
    original = FILTERS[name]
    at = 1 if hasattr(original, "jinja_pass_arg") else 0

    @wraps(original)
    def on_list(*args: Any, **kwargs: Any) -> Any:
        given = list(args)
        if not isinstance(given[at], (Undefined, dict)):
            given[at] = budget().items_of(given[at])
        budget().charge(letters=budget().weigh(given[at]).letters)  # many copy what they compare
        check_widths(*(a for a in (*given[at + 1 :], *kwargs.values()) if isinstance(a, int)))
        return original(*given, **kwargs)

    return on_list


def _listed(value: Any) -> Any:
    return budget().items_of(value)


def _reversed(value: Any) -> Any:
    if isinstance(value, str):
        budget().charge(len(value))
        return value[::-1]
    return budget().items_of(list(budget().items_of(value))[::-1])


@pass_environment
def _join_filter(environment: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = [environment.getitem(item, attribute) for item in budget().items_of(value)]
    return _join(to_text(d), [to_text(item) for item in budget().items_of(value)])


@pass_eval_context
def _sum(context: Any, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise TypeError("sum is for numbers")
    values = budget().items_of(value)
    return FILTERS["sum"](context.environment, values, attribute, start)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text, space = to_text(value), width if isinstance(width, str) else " " * min(width, MAX_WIDTH)
    check_widths(width if isinstance(width, int) else 0)
    lines = len(str.splitlines(text)) + 1
    budget().charge(len(text) + lines * len(space), lines)
    return own.indent(text, space if isinstance(width, str) else written(space), first, blank)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: jinja2's own would escape HTML."""
    check_widths(indent, indent)
    weight = budget().weigh(value)
    width = (len(indent) if isinstance(indent, str) else indent or 0) * weight.depth
    budget().charge(6 * weight.letters + weight.items * (width + 4), weight.items)
    options = {"ensure_ascii": bool(ensure_ascii), "indent": indent, "separators": separators}
    return own.to_json(value, sort_keys=bool(sort_keys), **options)


def _words(name: str) -> Function:
    def words(value: Any) -> Any:
        text = to_text(value)
        budget().charge(3 * len(text), len(text))
        result = FILTERS[name](str.__str__(text))
        return own.mapped(text, result) if isinstance(result, str) else result

    return words


def _escape(value: Any) -> Any:
    text = value if isinstance(value, Markup) else to_text(value)
    budget().charge(5 * len(text))
    return FILTERS["escape"](text)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    check_widths(precision)
    return FILTERS["round"](value, precision, method)


_LISTS = ("sort", "unique", "min", "max", "map", "select", "reject", "selectattr", "rejectattr")

FILTER_TABLE: dict[str, Function] = {
    **{name: FILTERS[name] for name in ("default", "d", "length", "count", "attr", "items")},
    **{name: FILTERS[name] for name in ("abs", "int", "float", "first", "last")},
    **{name: _on_list(name) for name in (*_LISTS, "groupby", "dictsort", "batch", "slice")},
    **{name: _on_text(TEXT_METHODS[name]) for name in ("upper", "lower", "capitalize", "replace")},
    "trim": _on_text(own.strip),
    "title": _words("title"),
    "wordcount": _words("wordcount"),
    "string": to_text,
    "list": _listed,
    "reverse": _reversed,
    "join": _join_filter,
    "sum": _sum,
    "indent": _indent,
    "tojson": _to_json,
    "format": _on_text(lambda text, *args, **kwargs: percent(text, kwargs or args)),
    "round": _round,
    "escape": _escape,
    "e": _escape,
    "forceescape": _on_text(_escape),
    "safe": _on_text(Markup),
}


# --- tests and functions ---------------------------------------------------------------------


def _on_number(test: Function) -> Function:
    """A test that computes `value % number`, which for text would be a format."""

    def on_number(value: Any, *args: Any) -> Any:
        return _number(lambda left, _: test(left, *args), value, 0)

    return on_number


_JINJA_TESTS: dict[str, Any] = {**TESTS}
TEST_TABLE: dict[str, Function] = {
    **_JINJA_TESTS,
    **{name: _on_number(_JINJA_TESTS[name]) for name in ("odd", "even", "divisibleby")},
}


class TemplateNamespace(Namespace):
    """jinja2's namespace without names that begin with an underscore, as in transformers."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"namespace attribute {name!r} begins with an underscore")
        super().__setitem__(name, value)


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message)[:1000])


def _strftime_now(format_text: str) -> str:
    check_widths(format_text, len(format_text))
    return written(datetime.now().strftime(format_text))


def _dict(*args: Any, **kwargs: Any) -> Any:
    return budget().fields_of(dict(*args, **kwargs))


FUNCTIONS: dict[str, Function] = {
    "raise_exception": _raise_exception,
    "strftime_now": _strftime_now,
    "namespace": TemplateNamespace,
    "dict": _dict,
}
