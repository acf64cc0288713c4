"""The operators that templates may use."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

from jinja2.exceptions import SecurityError

from nanocupy.text.sandbox import provenance
from nanocupy.text.sandbox.filters import escape
from nanocupy.text.sandbox.formats import percent
from nanocupy.text.sandbox.metering import budget
from nanocupy.text.sandbox.provenance import Safe
from nanocupy.text.sandbox.values import Function, check_bits, computed, concatenate


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, Safe) and isinstance(right, str):
        return provenance.safe(concatenate((left, escape(right))))
    if isinstance(left, str) and isinstance(right, Safe):
        return provenance.safe(concatenate((escape(left), right)))
    if isinstance(left, str) and isinstance(right, str):
        return concatenate((left, right))
    if isinstance(left, list) and isinstance(right, list):
        return budget().make_list([*left, *right])
    if isinstance(left, tuple) and isinstance(right, tuple):
        return tuple(budget().make_list([*left, *right]))
    return computed(operator.add, left, right)


def _multiply(left: Any, right: Any) -> Any:
    for many, count in ((left, right), (right, left)):
        if isinstance(many, str) and isinstance(count, int):
            budget().charge(letters=len(many) * max(count, 0))
            return provenance.repeat(many, count)
        if isinstance(many, (list, tuple)) and isinstance(count, int):
            budget().charge(items=len(many) * max(count, 0))
            repeated = budget().make_list(many * count)
            return tuple(repeated) if isinstance(many, tuple) else repeated
    if isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() + right.bit_length())
    return computed(operator.mul, left, right)


def _power(left: Any, right: Any) -> Any:
    if computed(operator.gt, abs(right), 64) or abs(left) > 1 << 32:
        raise SecurityError("a power is too large")
    return operator.pow(left, right)


def _modulo(left: Any, right: Any) -> Any:
    return percent(left, right) if isinstance(left, str) else computed(operator.mod, left, right)


OPERATORS: dict[str, Function] = {
    "+": _add,
    "-": partial(computed, operator.sub),
    "*": _multiply,
    "/": partial(computed, operator.truediv),
    "//": partial(computed, operator.floordiv),
    "%": _modulo,
    "**": _power,
}
