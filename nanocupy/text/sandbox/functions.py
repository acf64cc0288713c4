"""What chat templates may use: operators, methods, filters, tests and functions, each bounded.

Each gives what jinja2 gives, and follows which characters are the template's own (`written`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial, wraps
from types import GeneratorType
from typing import Any

from jinja2 import pass_environment, pass_eval_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.filters import FILTERS, ignore_case, make_attrgetter
from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedFormatter
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from nanocupy.text.sandbox import written as own
from nanocupy.text.sandbox.budget import (
    MAX_BITS,
    MAX_WIDTH,
    TooMuch,
    budget,
    check_widths,
    checked_key,
)
from nanocupy.text.sandbox.written import Safe, Written, written

Function = Callable[..., Any]
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))
_MAX_PATH = 16


def to_text(value: Any) -> str:
    """A value as a template writes it out."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (int, float)):
        return written(str(value))
    if isinstance(value, (list, tuple, dict)):
        weight = budget().weigh(value)
        budget().charge(2 * weight.letters, weight.items)
        return own.to_repr(value)
    if isinstance(value, Undefined):
        return str(value)
    if isinstance(value, _VIEWS):
        shown = to_text(budget().items_of(value))
        return own.join([written(f"{type(value).__name__}("), shown, written(")")])
    raise SecurityError(f"a {kind_of(value)} cannot be written out")


def kind_of(value: Any) -> str:
    """What a value is called in an error: a string that remembers its writer is a str."""
    known = (kind.__name__ for kind in (str, list, dict) if isinstance(value, kind))
    return next(known, type(value).__name__)


def concatenate(values: Any) -> str:
    """`a ~ b ~ ...`, and all that a template has written."""
    pieces = [to_text(value) for value in values]
    budget().charge(letters=sum(map(len, pieces)))
    return own.join(pieces)


# --- comparisons -----------------------------------------------------------------------------


def compared(value: Any) -> Any:
    """`value`, which is about to be compared, if that has an end."""
    if isinstance(value, (list, tuple, dict, str)):
        budget().check_time()
        budget().weigh(value)
    elif isinstance(value, int):
        _check_bits(value.bit_length())
    return value


def searched(value: Any) -> Any:
    """`value`, in which something is about to be looked for."""
    return budget().items_of(value) if isinstance(value, GeneratorType) else compared(value)


# --- operators -------------------------------------------------------------------------------


def _number(operation: Function, left: Any, right: Any) -> Any:
    if not isinstance(left, Undefined) and not isinstance(right, Undefined):  # those say it well
        for side in (left, right):
            if not isinstance(side, (int, float)):
                raise TypeError(f"arithmetic is for numbers, got {kind_of(side)}")
            if isinstance(side, int):
                _check_bits(side.bit_length())
    return operation(left, right)


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, Safe) and isinstance(right, str):
        return own.safe(concatenate((left, _escape(right))))
    if isinstance(left, str) and isinstance(right, Safe):
        return own.safe(concatenate((_escape(left), right)))
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
            budget().charge(letters=len(many) * max(count, 0))
            return own.repeat(many, count)
        if isinstance(many, (list, tuple)) and isinstance(count, int):
            budget().charge(items=len(many) * max(count, 0))
            repeated = budget().items_of(many * count)
            return tuple(repeated) if isinstance(many, tuple) else repeated
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

_PERCENT = re.compile(
    r"%(?:\(([^()]*)\))?([#0\- +]{0,5}\d{0,3}(?:\.\d{0,3})?)[hlL]?([diouxXeEfFgGcrsa%])"
)


def percent(text: str, values: Any) -> str:
    """`text % values`."""
    pieces = [_paid(piece) for piece in _percent_pieces(text, values)]
    return _followed(str.__mod__(text, values), pieces)


def _percent_pieces(text: str, values: Any) -> Iterator[str]:
    given = iter(values if isinstance(values, tuple) else (values,))
    end = 0
    while (at := str.find(text, "%", end)) >= 0:
        yield text[end:at]
        match = _PERCENT.match(text, at)
        if match is None:
            raise SecurityError(f"{str.__str__(text[at : at + 20])!r} is no format for templates")
        end = match.end()
        if match[3] == "%":
            yield text[end - 1 : end]
            continue
        if match[1] is not None and not isinstance(values, dict):
            raise TypeError("format requires a mapping")
        value = values[match[1]] if match[1] is not None else next(given, None)
        if match[3] == "s" and not match[2]:
            yield to_text(value)
        else:
            _check_shown(value)
            shown = str.__mod__(f"%{match[2]}{match[3]}", (value,))
            yield _by_number(value, shown) if match[3] != "c" else shown
    yield text[end:]


def _check_shown(value: Any) -> None:
    budget().charge(letters=12 * budget().weigh(value).letters)


def _by_number(value: Any, shown: str) -> str:
    """What a format makes of a value: the template's own for numbers."""
    return written(shown) if isinstance(value, (int, float)) else shown


def _paid(piece: str) -> str:
    budget().charge(letters=len(piece))
    return piece


def _followed(result: str, pieces: list[str]) -> str:
    """`result`, by the pieces that it should consist of; where it does not, by nobody."""
    followed = own.join(pieces)
    return followed if followed == result else result


def braces(environment: Any, text: str, *args: Any, **kwargs: Any) -> str:
    """`text.format(*args, **kwargs)`."""
    pieces = [_paid(piece) for piece in _brace_pieces(environment, text, args, kwargs)]
    return _followed(SandboxedFormatter(environment).vformat(text, args, kwargs), pieces)


def _brace_pieces(environment: Any, text: str, args: Any, kwargs: Any) -> Iterator[str]:
    formatter = SandboxedFormatter(environment)
    literal = written if own.is_whole(text) else str.__str__
    index = 0
    for before, name, spec, conversion in formatter.parse(str.__str__(text)):
        yield literal(before)
        if name is None:
            continue
        if "{" in (spec or "") or re.search(r"\d{4}", spec or ""):
            raise SecurityError("a width in a format is too large, or not a number")
        if len(re.split(r"[.\[]", name, maxsplit=_MAX_PATH)) > _MAX_PATH:
            raise TooMuch("a field of a format is too long")
        if name.split(".")[0].split("[")[0] == "":
            name, index = f"{index}{name}", index + 1
        value, _ = formatter.get_field(name, args, kwargs)
        if not spec and not conversion:
            yield to_text(value)
            continue
        _check_shown(value)
        shown = formatter.format_field(formatter.convert_field(value, conversion), spec or "")
        yield shown if (spec or "").endswith("c") else _by_number(value, shown)


# --- methods ---------------------------------------------------------------------------------


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
    budget().charge(len(text), _lines(text))
    return budget().items_of(own.splitlines(text, keepends))


def _lines(text: str) -> int:
    return 1 + sum(str.count(text, end) for end in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = str.count(text, old)
    found = min(found, count) if count >= 0 else found
    grown = found * max(0, len(new) - len(old))
    followed = isinstance(text, Written) or isinstance(new, Written)
    budget().charge(len(text) + grown, found if followed else 0)
    return own.replace(text, old, new, count)


def _join(separator: str, values: Any) -> str:
    pieces = budget().items_of(values)
    if wrong := [piece for piece in pieces if not isinstance(piece, str)]:
        raise TypeError(f"join wants text, got {kind_of(wrong[0])}")
    budget().charge(budget().weigh(pieces).letters + len(separator) * len(pieces))
    return own.join(pieces, separator)


def _stripped(function: Function) -> Function:
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
    "strip": _stripped(own.strip),
    "lstrip": _stripped(own.lstrip),
    "rstrip": _stripped(own.rstrip),
    "removeprefix": own.removeprefix,
    "removesuffix": own.removesuffix,
    "partition": own.partition,
    "rpartition": _rpartition,
    "split": _split,
    "rsplit": partial(_split, right=True),
    "splitlines": _splitlines,
    "replace": _replace,
    "join": _join,
    **{name: _cased(name) for name in _CASES},
    **{name: _searching(name) for name in _FOUND},
    **{f"is{name}": _kind(f"is{name}") for name in _KINDS},
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


def _on_list(name: str) -> Function:
    """jinja2's filter, on a list that is paid for."""
    original = FILTERS[name]
    at = 1 if hasattr(original, "jinja_pass_arg") else 0

    @wraps(original)
    def on_list(*args: Any, **kwargs: Any) -> Any:
        given = list(args)
        if isinstance(given[at], dict):
            budget().weigh(given[at])
        elif given[at] is not None and not isinstance(given[at], Undefined):
            given[at] = budget().items_of(given[at])
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
    """Parts of an attribute such as "function.name,type"; 0 for what is none."""
    parts = len(re.split("[.,]", path, maxsplit=_MAX_PATH)) if isinstance(path, str) else 0
    if parts > _MAX_PATH or (isinstance(path, str) and len(path) > MAX_WIDTH):
        raise TooMuch("an attribute is too long")
    return parts


def _compared_items(values: Any, steps: int) -> int:
    """What sorting costs, in items made."""
    return len(values) * max(steps, len(values).bit_length()) // 4


@pass_environment
def _unique(
    environment: Any, value: Any, case_sensitive: bool = False, attribute: Any = None
) -> Any:
    _path_length(attribute)
    case = None if case_sensitive else ignore_case
    key_of = make_attrgetter(environment, attribute, postprocess=case)
    found: dict[Any, Any] = {}
    for item in budget().items_of(value):
        budget().check_time()
        found.setdefault(checked_key(key_of(item)), item)
    return budget().items_of(found.values())


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
        _path_length(attribute)
        value = map(make_attrgetter(environment, attribute), budget().items_of(value))
    return _join(to_text(d), [to_text(item) for item in budget().items_of(value)])


@pass_eval_context
def _sum(context: Any, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise TypeError("sum is for numbers")
    _path_length(attribute)
    values = budget().items_of(value)
    return FILTERS["sum"](context.environment, values, attribute, start)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text, space = to_text(value), width if isinstance(width, str) else " " * min(width, MAX_WIDTH)
    check_widths(width if isinstance(width, int) else 0)
    lines = _lines(text)
    budget().charge(len(text) + lines * len(space), 2 * lines)
    return own.indent(text, space if isinstance(width, str) else written(space), first, blank)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: jinja2's own would escape HTML."""
    check_widths(indent, len(indent) if isinstance(indent, str) else 0)
    check_widths(*map(len, separators or ()))
    weight = budget().weigh(value)
    width = (len(indent) if isinstance(indent, str) else indent or 0) * weight.depth
    width += sum(map(len, separators or ()))
    budget().charge(2 * weight.letters + weight.items * (width + 4), weight.items)
    options = {"ensure_ascii": bool(ensure_ascii), "indent": indent, "separators": separators}
    return own.to_json(value, sort_keys=bool(sort_keys), **options)


def _words(name: str) -> Function:
    def words(value: Any) -> Any:
        text = to_text(value)
        budget().charge(3 * len(text), len(text) // 4)
        result = FILTERS[name](str.__str__(text))
        return own.mapped(text, result) if isinstance(result, str) else result

    return words


_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"}


def _escape(value: Any) -> str:
    """Text for HTML; what is escaped already stays."""
    text = to_text(value)
    return text if isinstance(text, Safe) else _escaped(text)


def _escaped(text: str) -> str:
    for letter, entity in _ENTITIES.items():
        text = _replace(text, letter, entity)
    return own.safe(text)


def _escaped_again(value: Any) -> str:
    text = to_text(value)
    return _escaped(own.flagged(str.__str__(text), own.flags(text)))


def _int(value: Any, default: Any = 0, base: Any = 10) -> Any:
    result = FILTERS["int"](value, default, base)
    if isinstance(result, int):
        _check_bits(result.bit_length())
    return result


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    check_widths(precision)
    return _number(lambda left, _: FILTERS["round"](left, precision, method), value, 0)


def _replace_filter(value: Any, old: Any, new: Any, count: Any = None) -> str:
    return _replace(to_text(value), to_text(old), to_text(new), -1 if count is None else count)


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
    **{name: _on_text(TEXT_METHODS[name]) for name in ("upper", "lower", "capitalize")},
    "trim": _on_text(_stripped(own.strip)),
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
    "format": _on_text(lambda text, *args, **kwargs: percent(text, kwargs or args)),
    "round": _round,
    "escape": _escape,
    "e": _escape,
    "forceescape": _escaped_again,
    "safe": lambda value: own.safe(to_text(value)),
}


# --- tests and functions ---------------------------------------------------------------------


def _on_number(test: Function) -> Function:
    """A test that computes `value % number`, which for text would be a format."""

    def on_number(value: Any, *args: Any) -> Any:
        return _number(lambda left, _: test(left, *args), value, 0)

    return on_number


def _comparing(test: Function, container: bool = False) -> Function:
    """A test that compares what can be compared with an end."""

    def comparing(value: Any, other: Any) -> Any:
        return test(compared(value), searched(other) if container else compared(other))

    return comparing


_JINJA_TESTS: dict[str, Any] = {**TESTS}
_ORDERS = (
    *("==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge"),
    *("<", "lt", "lessthan", "<=", "le"),
)
TEST_TABLE: dict[str, Function] = {
    **_JINJA_TESTS,
    **{name: _on_number(_JINJA_TESTS[name]) for name in ("odd", "even", "divisibleby")},
    **{name: _comparing(_JINJA_TESTS[name]) for name in _ORDERS},
    "in": _comparing(_JINJA_TESTS["in"], container=True),
    **{name: _on_text(_JINJA_TESTS[name]) for name in ("lower", "upper")},
}


class TemplateNamespace(Namespace):
    """jinja2's namespace without names that begin with an underscore, as in transformers."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"namespace attribute {name!r} begins with an underscore")
        super().__setitem__(name, value)

    def __repr__(self) -> str:  # jinja2's writes out what it holds, which may be itself
        return "<Namespace>"


def _raise_exception(message: Any) -> None:
    raise TemplateError(str.__str__(to_text(message)[:1000]))


def _strftime_now(format_text: str) -> str:
    check_widths(len(format_text))
    if re.search(r"%[-_0^#+]*\d{3}", format_text):
        raise TooMuch("a width in a format is too large")
    shown = datetime.now().strftime(format_text)
    return written(shown) if own.is_whole(format_text) else shown


def _dict(source: Any = (), /, **kwargs: Any) -> Any:
    pairs = source.items() if isinstance(source, dict) else _pairs(source)
    return budget().fields_of([*pairs, *kwargs.items()])


def _pairs(values: Any) -> Iterator[Any]:
    for pair in budget().items_of(values):
        key, value = pair
        yield key, value


def _namespace(*args: Any, **kwargs: Any) -> Any:
    """Macros and generators can be in it, for what it holds is not part of its value."""
    budget().charge(items=len(kwargs) + 4)
    return TemplateNamespace(_dict(*args), **kwargs)


FUNCTIONS: dict[str, Function] = {
    "raise_exception": _raise_exception,
    "strftime_now": _strftime_now,
    "namespace": _namespace,
    "dict": _dict,
}
