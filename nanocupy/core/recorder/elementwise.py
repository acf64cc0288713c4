"""The elementwise operations of a step: add, multiply, silu and gelu.

`core.maths.elementwise` has all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nanocupy.core.recorder import rowwise
from nanocupy.core.recorder.arrays import array, record
from nanocupy.core.recorder.casting import astype, promote
from nanocupy.core.recorder.dtypes import floating
from nanocupy.core.recorder.graph import Op, Spec, Steps
from nanocupy.core.recorder.rowwise import (
    by_chain,
    kernel_or_chain,
    of_numbers,
    steps_of,
    without_gaps,
)
from nanocupy.core.recorder.specs import Becomes, broadcast, same_dtype, upcasting


def elementwise_op(
    name: str,
    function: Callable[..., Any],
    steps: Steps | None = None,
    lower: Callable[..., None] | None = None,
    *,
    dtype: Any = None,
    rounded: bool = False,
) -> Op:
    """An operation of arrays that have one dtype already.

    Args:
        function: in NumPy.
        steps: the operation as steps of a chain, if it has any.
        lower: to a kernel.
        dtype: of the result; None: the inputs'.
        rounded: its value is what the steps compute, not what `function` does, which differs in
            the last bit on other machines.
    """

    def infer(*specs: Spec, **_: Any) -> Spec:
        return broadcast(*(s for s, _ in specs)), specs[0][1] if dtype is None else dtype

    if steps:
        function = by_chain(steps, function) if rounded else without_gaps(function)
        lower = kernel_or_chain(steps, lower)
    return Op(name, infer, function, lower, row_wise=True, steps=steps)


def inputs(becomes: Becomes, values: tuple[Any, ...]) -> list[array]:
    """The values as arrays of the dtype that `becomes` makes of their common one."""
    arrays = promote(values)
    return arrays if becomes is same_dtype else [astype(x, becomes(x.dtype)) for x in arrays]


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _gelu(x: np.ndarray) -> np.ndarray:
    from nanocupy.kernels.silu_mul import gelu_reference

    return gelu_reference(x)


def _step_op(name: str, function: Any, lower: Any, rounded: bool = False) -> Op:
    steps = of_numbers(steps_of(name))
    return elementwise_op(name, upcasting(function), steps, lower, rounded=rounded)


ADD = _step_op("add", np.add, rowwise.binary("add"))
MULTIPLY = _step_op("multiply", np.multiply, rowwise.product)
SILU = _step_op("silu", _silu, rowwise.unary("silu"), rounded=True)
GELU = _step_op("gelu", _gelu, rowwise.unary("gelu"), rounded=True)


def add(a: Any, b: Any) -> array:
    """`numpy.add` on arrays."""
    return record(ADD, *promote((a, b)))


def multiply(a: Any, b: Any) -> array:
    """`numpy.multiply` on arrays."""
    return record(MULTIPLY, *promote((a, b)))


def silu(x: Any) -> array:
    """x * sigmoid(x)."""
    return record(SILU, *inputs(floating, (x,)))


def gelu_approx(x: Any) -> array:
    """x times the normal distribution up to x, by the tanh formula, as Gemma has it."""
    return record(GELU, *inputs(floating, (x,)))
