"""The tests and functions that templates may use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from jinja2.exceptions import SecurityError, TemplateError
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from nanocupy.text.sandbox import provenance
from nanocupy.text.sandbox.filters import on_text
from nanocupy.text.sandbox.metering import LimitError, budget, check_widths
from nanocupy.text.sandbox.provenance import template_text
from nanocupy.text.sandbox.values import Function, compared, computed, searched, to_text


def _on_number(test: Function) -> Function:
    """A test of `value % number`, refused for text, where `%` would be a format."""

    def on_number(value: Any, *args: Any) -> Any:
        return computed(lambda left, _: test(left, *args), value, 0)

    return on_number


def _comparing(test: Function, container: bool = False) -> Function:
    """A test of values whose comparison ends in bounded time."""

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
    **{name: on_text(_JINJA_TESTS[name]) for name in ("lower", "upper")},
}


class TemplateNamespace(Namespace):
    """jinja2's namespace, without names that begin with an underscore, as in transformers."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"namespace attribute {name!r} begins with an underscore")
        super().__setitem__(name, value)

    def __repr__(self) -> str:  # jinja2's writes out its contents, which may include itself
        return "<Namespace>"


def _raise_exception(message: Any) -> None:
    raise TemplateError(str.__str__(to_text(message)[:1000]))


def _strftime_now(format_text: str) -> str:
    check_widths(len(format_text))
    if re.search(r"%[-_0^#+]*\d{3}", format_text):
        raise LimitError("a width in a format is too large")
    shown = datetime.now().strftime(format_text)
    return template_text(shown) if provenance.is_whole(format_text) else shown


def _dict(source: Any = (), /, **kwargs: Any) -> Any:
    pairs = source.items() if isinstance(source, dict) else _pairs(source)
    return budget().make_dict([*pairs, *kwargs.items()])


def _pairs(values: Any) -> Iterator[Any]:
    for pair in budget().make_list(values):
        key, value = pair
        yield key, value


def _namespace(*args: Any, **kwargs: Any) -> Any:
    """Its attributes may be macros and generators: they are not weighed."""
    budget().charge(items=len(kwargs) + 4)
    return TemplateNamespace(_dict(*args), **kwargs)


FUNCTIONS: dict[str, Function] = {
    "raise_exception": _raise_exception,
    "strftime_now": _strftime_now,
    "namespace": _namespace,
    "dict": _dict,
}
