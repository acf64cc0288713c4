"""Many elements to one, along some axes or all: as `mlx.core` has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from nanocupy.core.arrays.layout import diagonal
from nanocupy.core.maths import elementwise
from nanocupy.core.recorder import rowwise
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype
from nanocupy.core.recorder.dtypes import floating, summed
from nanocupy.core.recorder.graph import Op, Spec
from nanocupy.core.recorder.shapes import slice_axis
from nanocupy.core.recorder.specs import (
    Axes,
    Becomes,
    normal_axes,
    normal_axis,
    reduced,
    same_dtype,
    upcast,
    whole_number,
)
from nanocupy.dtypes import bool_, float32, int32, uint32


class Reduction(Protocol):
    def __call__(self, x: Any, /, axis: Axes = None, keepdims: bool = False) -> array: ...


def _reduction(
    name: str, becomes: Becomes, function: Any = None, *, of_none: bool = True, lower: Any = None
) -> Reduction:
    """A reduction over axes.

    Args:
        becomes: the dtype of the result, from that of x.
        function: `function(x, axis=..., keepdims=...)` in NumPy. None: the one with this name.
        of_none: whether a reduction of no elements has a value.
        lower: to a kernel.
    """
    function = function or getattr(np, name)

    def run(x: np.ndarray, *, axis: tuple[int, ...], keepdims: bool, **more: Any) -> np.ndarray:
        value = np.asarray(function(upcast(x), axis=axis, keepdims=keepdims, **more))
        return value.astype(becomes(x.dtype))

    def infer(spec: Spec, *, axis: tuple[int, ...], keepdims: bool, **_: Any) -> Spec:
        shape, dtype = spec
        return reduced(shape, axis, keepdims), becomes(dtype)

    op = Op(name, infer, run, lower, row_wise=lower is not None)

    def call(x: Any, /, axis: Axes = None, keepdims: bool = False, **more: Any) -> array:
        x = as_array(x)
        axes = normal_axes(name, axis, x.ndim)
        if not of_none and 0 in (x.shape[a] for a in axes):
            raise ValueError(f"[{name}] of no elements: axis {axis} of shape {x.shape}")
        if not axes and becomes is summed:  # as MLX: where nothing is summed, nothing changes
            return x
        return record(op, x, axis=axes, keepdims=keepdims, **more)

    call.__name__, call.__doc__ = name, f"`numpy.{name}` over axes; None is all of them."
    return call


def _bool(_: np.dtype[Any]) -> np.dtype[Any]:
    return bool_


def _sum(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.sum(x, axis=axis, keepdims=keepdims, dtype=summed(x.dtype))


def _prod(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.prod(x, axis=axis, keepdims=keepdims, dtype=summed(x.dtype))


def _mean(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    x = x.astype(floating(x.dtype), copy=False)
    return x.sum(axis=axis, keepdims=keepdims) / _count(x, axis)


def _count(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """How many elements are one, in the dtype of x."""
    return np.asarray(np.prod([x.shape[a] for a in axis]), x.dtype)


def _variance(x: np.ndarray, axis: tuple[int, ...], keepdims: bool, ddof: int = 0) -> Any:
    """Where there are no more elements than `ddof`, NaN or infinity, without a warning."""
    x = x.astype(floating(x.dtype), copy=False)
    squares = np.square(x - _mean(x, axis, True)).sum(axis=axis, keepdims=keepdims)
    return squares / np.maximum(_count(x, axis) - np.asarray(ddof, x.dtype), 0)


def _deviation(x: np.ndarray, axis: tuple[int, ...], keepdims: bool, ddof: int = 0) -> Any:
    return np.sqrt(_variance(x, axis, keepdims, ddof))


def _logsumexp(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Around the largest, unless that is not finite."""
    x = x.astype(floating(x.dtype), copy=False)
    most = np.max(x, axis=axis, keepdims=True)
    centre = np.where(np.isfinite(most), most, x.dtype.type(0))
    value = np.log(np.sum(np.exp(x - centre), axis=axis, keepdims=True)) + centre
    return value if keepdims else np.squeeze(value, axis)


sum = _reduction("sum", summed, _sum, lower=rowwise.total)
prod = _reduction("prod", summed, _prod)
mean = _reduction("mean", floating, _mean)
max, min = (
    _reduction("max", same_dtype, of_none=False),
    _reduction("min", same_dtype, of_none=False),
)
all, any = _reduction("all", _bool), _reduction("any", _bool)
logsumexp = _reduction("logsumexp", floating, _logsumexp, of_none=False)
_VAR: Callable[..., array] = _reduction("var", floating, _variance)
_STD: Callable[..., array] = _reduction("std", floating, _deviation)


def var(x: Any, /, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> array:
    """The variance over axes: the sum of squares by (elements - ddof)."""
    return _VAR(x, axis, keepdims, ddof=ddof)


def std(x: Any, /, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> array:
    """The square root of `var`."""
    return _STD(x, axis, keepdims, ddof=ddof)


def minmax(x: Any, /, axis: Axes = None, keepdims: bool = False) -> tuple[array, array]:
    """(min, max)."""
    return min(x, axis, keepdims), max(x, axis, keepdims)


def count_nonzero(x: Any, /, *, axis: Axes = None, keepdims: bool = False) -> array:
    """How many elements are not zero, int32."""
    return astype(sum(astype(x, bool_), axis, keepdims), int32)


# ---- where the largest is


def _arg(name: str) -> Reduction:
    function = getattr(np, name)

    def run(x: np.ndarray, *, axis: int | None, keepdims: bool) -> np.ndarray:
        return np.asarray(function(upcast(x), axis=axis, keepdims=keepdims)).astype(uint32)

    def infer(spec: Spec, *, axis: int | None, keepdims: bool) -> Spec:
        return reduced(spec[0], normal_axes(name, axis, len(spec[0])), keepdims), uint32

    op = Op(name, infer, run)

    def call(x: Any, /, axis: Axes = None, keepdims: bool = False) -> array:
        x = as_array(x)
        if 0 in x.shape:
            raise ValueError(f"[{name}] of no elements: shape {x.shape}")
        where = None if axis is None else normal_axis(name, axis, x.ndim)  # type: ignore[arg-type]
        return record(op, x, axis=where, keepdims=keepdims)

    call.__name__, call.__doc__ = name, f"`numpy.{name}`, uint32; the first of equals."
    return call


argmax, argmin = _arg("argmax"), _arg("argmin")

# ---- made of these


def _softmax(x: np.ndarray, *, axis: tuple[int, ...]) -> np.ndarray:
    weights = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
    return np.asarray(weights / weights.sum(axis, keepdims=True))


_SOFTMAX = Op(
    "softmax", lambda spec, *, axis: spec, _softmax, rowwise.along("softmax"), row_wise=True
)


def softmax(x: Any, /, axis: Axes = None, *, precise: bool = False) -> array:
    """exp(x) / sum(exp(x)) over axes; None is all of them.

    It is computed in float32 at least, and so always as precisely as `precise` asks.
    """
    x = as_array(x)
    kind = floating(x.dtype)
    value = record(
        _SOFTMAX,
        astype(x, kind if kind.itemsize >= 4 else float32),
        axis=normal_axes("softmax", axis, x.ndim),
    )
    return astype(value, kind)


def array_equal(x: Any, y: Any, equal_nan: bool = False) -> array:
    """Whether shapes and all elements are equal; NaN equals NaN if `equal_nan`."""
    x, y = as_array(x), as_array(y)
    if x.shape != y.shape:
        return array(False)
    same = elementwise.equal(x, y)
    if equal_nan:
        same = elementwise.logical_or(
            same, elementwise.logical_and(elementwise.isnan(x), elementwise.isnan(y))
        )
    return all(same)


def allclose(
    x: Any, y: Any, /, rtol: float = 1e-5, atol: float = 1e-8, *, equal_nan: bool = False
) -> array:
    """Whether all elements are `isclose`."""
    return all(elementwise.isclose(x, y, rtol, atol, equal_nan=equal_nan))


def trace(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> array:
    """The sum of a diagonal."""
    return sum(astype(diagonal(x, offset, axis1, axis2), dtype or as_array(x).dtype), -1)


def diff(x: Any, /, n: int = 1, axis: int = -1) -> array:
    """Each element less the one before it, n times."""
    x = as_array(x)
    place = normal_axis("diff", axis, x.ndim)
    for _ in range(whole_number("diff", "n", n, least=0)):
        length = int(x.shape[place])
        later, sooner = slice_axis(x, place, 1, length), slice_axis(x, place, 0, length - 1)
        x = (elementwise.not_equal if x.dtype == bool_ else elementwise.subtract)(later, sooner)
    return x
