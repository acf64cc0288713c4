"""Values of templates: their text, their names in errors, and checks before using them."""

from __future__ import annotations

from collections.abc import Callable
from types import GeneratorType
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

from nanocupy.text.sandbox import provenance
from nanocupy.text.sandbox.metering import MAX_BITS, budget
from nanocupy.text.sandbox.provenance import template_text

Function = Callable[..., Any]
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))


def to_text(value: Any) -> str:
    """A value as a template writes it out."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (int, float)):
        return template_text(str(value))
    if isinstance(value, (list, tuple, dict)):
        weight = budget().weigh(value)
        budget().charge(2 * weight.letters, weight.items)
        return provenance.to_repr(value)
    if isinstance(value, Undefined):
        return str(value)
    if isinstance(value, _VIEWS):
        name, shown = type(value).__name__, to_text(budget().make_list(value))
        return provenance.join([template_text(f"{name}("), shown, template_text(")")])
    raise SecurityError(f"a {kind_of(value)} cannot be written out")


def kind_of(value: Any) -> str:
    """The name of a value's type in an error; that of str, list or dict for our subclasses."""
    known = (kind.__name__ for kind in (str, list, dict) if isinstance(value, kind))
    return next(known, type(value).__name__)


def concatenate(values: Any) -> str:
    """`a ~ b ~ ...`; also joins the output of a template."""
    pieces = [to_text(value) for value in values]
    budget().charge(letters=sum(map(len, pieces)))
    return provenance.join(pieces)


def compared(value: Any) -> Any:
    """`value`, if comparing it ends in bounded time."""
    if isinstance(value, (list, tuple, dict, str)):
        budget().check_time()
        budget().weigh(value)
    elif isinstance(value, int):
        check_bits(value.bit_length())
    return value


def searched(value: Any) -> Any:
    """`value`, if searching in it ends in bounded time."""
    return budget().make_list(value) if isinstance(value, GeneratorType) else compared(value)


def computed(operation: Function, left: Any, right: Any) -> Any:
    """`operation(left, right)`, of numbers."""
    if not isinstance(left, Undefined) and not isinstance(right, Undefined):  # its errors are good
        for side in (left, right):
            if not isinstance(side, (int, float)):
                raise TypeError(f"arithmetic is for numbers, got {kind_of(side)}")
            if isinstance(side, int):
                check_bits(side.bit_length())
    return operation(left, right)


def check_bits(bits: int) -> None:
    """Refuse whole numbers that take long to compute with."""
    if bits > MAX_BITS:
        raise SecurityError("a number is too large")
