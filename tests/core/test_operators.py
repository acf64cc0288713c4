"""Operators of an array and something else: a number, what says that it is an array, the rest."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

from beside_mlx import both, ours

OTHERS = ["text", b"bytes", [1, 2], (1, 2), {}, {1}, object(), print, ValueError, ...]
OPERATORS = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.pow, operator.matmul, operator.and_, operator.or_, operator.xor, operator.lshift,
    operator.lt, operator.le, operator.gt, operator.ge, operator.iadd, operator.imul,
]  # fmt: skip


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_what_is_no_array_is_unlike_one(other: Any) -> None:
    if not isinstance(other, bytes):  # which MLX takes for an array
        both(lambda mx, of: [mx.array([1, 2]) == other, mx.array([1, 2]) != other])
    assert (ours.array([1, 2]) == other) is False
    assert (ours.array([1, 2]) != other) is True
    assert other not in [ours.array([1, 2])]


@pytest.mark.parametrize("other", [*OTHERS, None], ids=str)
@pytest.mark.parametrize("call", OPERATORS)
def test_an_operator_of_an_array_and_something_else_is_refused(call: Any, other: Any) -> None:
    both(lambda mx, of: call(mx.array([1, 2]), other))
    with pytest.raises(TypeError if other is None else ValueError, match="of an array and"):
        call(ours.array([1, 2]), other)
    if call not in (operator.iadd, operator.imul, operator.mod):  # "text" % is Python's
        with pytest.raises((TypeError, ValueError)):
            call(other, ours.array([1, 2]))


def test_none_is_a_type_error() -> None:
    for call in (operator.eq, operator.ne, operator.lt, operator.add):
        both(lambda mx, of, call=call: call(mx.array([1]), None))
        with pytest.raises(TypeError, match="None"):
            call(ours.array([1]), None)


def test_ints_are_not_divided_in_place() -> None:
    def call(mx: Any, of: Any) -> Any:
        x = mx.array([1, 2])
        x /= 2
        return x

    both(call)
    x = ours.array([1, 2])
    with pytest.raises(ValueError, match="in place of int32"):
        x /= 2
    assert x.tolist() == [1, 2]


def test_arrays_of_others_meet() -> None:
    for call in (operator.add, operator.mul, operator.eq, operator.lt):
        both(lambda mx, of, call=call: call(mx.array([1, 2]), np.array([2, 2])))
        both(lambda mx, of, call=call: call(mx.array([1.5, 2]), np.float64(2.5)))
        both(lambda mx, of, call=call: call(mx.array([1, 2], mx.float16), np.array([2.5, 2])))
