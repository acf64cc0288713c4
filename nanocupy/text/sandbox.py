"""The environment that chat templates run in: transformers' settings, and bounds on work.

Templates come with the model. They are programs, so they run in jinja2's sandbox; what that
leaves open, long loops and huge strings, has limits here. The one place that imports jinja2.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import nodes, pass_eval_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_SECONDS = 2.0
MAX_TEXT = 1 << 24
"""Characters in any one string that a template makes."""
MAX_ITEMS = 1 << 18
"""Items in any one list that a template makes, those of lists inside it counted too."""
MAX_WIDTH = 1000
"""The largest width, count or indent that a template may give to a function of strings."""

_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))  # of CPU time


class Template:
    """A compiled chat template. ValueError if it does not compile."""

    def __init__(self, source: str) -> None:
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except Exception as error:  # constants are computed while compiling: anything can happen
            raise ValueError(f"the chat template does not compile: {error}") from error

    def render(self, variables: dict[str, Any], limit: int) -> str:
        """The text, of at most `limit` characters; ValueError for whatever goes wrong."""
        token = _deadline.set(time.thread_time() + MAX_SECONDS)
        try:
            return "".join(_bounded(self._template.generate(**variables), limit))
        except Exception as error:  # a template is a program: it can raise anything
            raise ValueError(f"the chat template failed: {error}") from error
        finally:
            _deadline.reset(token)


def _bounded(pieces: Iterator[str], limit: int) -> Iterator[str]:
    for piece in pieces:
        limit -= len(piece)
        if limit < 0:
            raise SecurityError("it writes far more text than it was given")
        yield piece


def _check_time() -> None:
    if time.thread_time() > _deadline.get():
        raise SecurityError(f"it computed for more than {MAX_SECONDS} s")


# --- bounds on values ------------------------------------------------------------------------


def _checked(value: Any) -> Any:
    """The value, if writing it out stays within MAX_TEXT; lists inside lists can explode."""
    letters, items, pending = MAX_TEXT, MAX_ITEMS, [value]
    while pending:
        item = pending.pop()
        items -= 1
        if isinstance(item, str):
            letters -= len(item)
        elif isinstance(item, (list, tuple, dict)):
            items -= len(item)
        if letters < 0 or items < 0:
            raise SecurityError("a value is too large")
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)
    return value


def _check_widths(*values: Any) -> None:
    """Refuse large numbers, also inside formats: '%99999s', '{:>99999}'."""
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_WIDTH:
            raise SecurityError(f"the number {value} is too large here")
        if isinstance(value, str):
            digits = 0
            for letter in value:
                digits = digits + 1 if letter.isdecimal() else 0
                if digits > 3:
                    raise SecurityError("a width in a format is too large")


def _check_length(length: int, limit: int = MAX_TEXT) -> None:
    if length > limit:
        raise SecurityError("a text or list is too long")


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > 4096:
            raise SecurityError("a number is too large")
        return
    for many, count in ((left, right), (right, left)):
        if isinstance(many, (str, list, tuple)) and isinstance(count, int):
            _check_length(len(many) * count, MAX_TEXT if isinstance(many, str) else MAX_ITEMS)


def _check_power(left: Any, right: Any) -> None:
    if not (abs(right) <= 64 and abs(left) <= 1 << 32):
        raise SecurityError("a power is too large")


def _check_format(left: Any, right: Any) -> None:
    if isinstance(left, str):
        _check_widths(left, *(right if isinstance(right, tuple) else (right,)))
        _checked(right)


_OPERATORS: dict[str, Callable[[Any, Any], None]] = {
    "*": _check_product,
    "**": _check_power,
    "%": _check_format,
    "+": lambda left, right: None,
}


def _check_method(text: str, name: str, args: tuple[Any, ...]) -> None:
    """Methods of str that make a longer one."""
    if name == "replace" and len(args) > 1:
        _check_length((len(text) + 1) * len(str(args[1])))
    elif name == "join" and args:
        _check_join(args[0], text)
    elif name in ("center", "ljust", "rjust", "zfill", "expandtabs"):
        _check_widths(*(n for n in args if isinstance(n, int)))


def _check_join(items: Any, separator: Any) -> None:
    _check_length(len(items) * len(str(separator)))
    _checked(items)


# --- the environment -------------------------------------------------------------------------


class _Generator(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """`a ~ b`, through a function that bounds the result."""
        self.write("environment.concatenate((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    # Interception also keeps jinja2 from computing 'a' * 10**9 while it compiles.
    intercepted_binops = frozenset(_OPERATORS)
    code_generator_class = _Generator

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse, and let every turn of every loop look at the clock."""
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
            loop.body.insert(0, nodes.ExprStmt(tick).set_lineno(loop.lineno))
        return tree

    @staticmethod
    def tick() -> None:
        """Called in every turn of a loop."""
        _check_time()

    @staticmethod
    def concatenate(parts: tuple[Any, ...]) -> str:
        """`a ~ b ~ ...`"""
        return str(_checked("".join(map(str, _checked(parts)))))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Intercepted operators."""
        _OPERATORS[operator](left, right)
        return _checked(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """str.format, which jinja2 replaces by its own."""
        format_text = super().wrap_str_format(value)
        if format_text is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            given = (*args, *kwargs.values())
            _check_widths(value.__self__, *given)
            _checked(given)
            return format_text(*args, **kwargs)

        return bounded

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call that a template makes."""
        _check_time()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            name = getattr(obj, "__name__", "")
            if name == "join" and args:
                args = (list(args[0]), *args[1:])
            _check_method(owner, name, (*args, *kwargs.values()))
        return super().call(context, obj, *args, **kwargs)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's text for training; here it is only its contents."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's own interface)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """jinja2's namespace without names that begin with an underscore, as in transformers."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"namespace attribute {name!r} begins with an underscore")
        super().__setitem__(name, value)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: jinja2's own would escape HTML."""
    _check_widths(indent)
    return json.dumps(
        _checked(value),
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format_text: str) -> str:
    _check_widths(format_text)
    return datetime.now().strftime(format_text)


def _narrow(original: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of jinja2 that makes text or lists, with bounded numbers."""

    def narrow(value: Any, *args: Any, **kwargs: Any) -> Any:
        _check_widths(*(a for a in (*args, *kwargs.values()) if isinstance(a, int)))
        return _checked(original(_checked(value), *args, **kwargs))

    return narrow


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    return str(_ENVIRONMENT.call_binop(None, "%", str(value), kwargs or args))


@pass_eval_context
def _join(context: Any, value: Any, d: str = "", attribute: str | None = None) -> str:
    items = list(value)
    _check_join(items, d)
    return str(FILTERS["join"](context, items, d, attribute))


@pass_eval_context
def _replace(context: Any, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    _check_method(str(s), "replace", (old, new))
    return str(FILTERS["replace"](context, s, old, new, count))


def _make_environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        finalize=_checked,
    )
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    for name in ("pprint", "urlize", "xmlattr", "wordwrap", "truncate"):
        del environment.filters[name]
    for name in ("center", "indent", "batch", "slice", "string"):
        environment.filters[name] = _narrow(FILTERS[name])
    environment.filters.update(join=_join, replace=_replace, format=_format)
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, namespace=_Namespace
    )
    return environment


_ENVIRONMENT = _make_environment()
