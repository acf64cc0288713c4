"""Order along one axis, as `mlx.core` has it. NaN comes last; None for an axis is one dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.maths.elementwise import isnan, where
from nanocupy.core.maths.reductions import mean
from nanocupy.core.recorder import rowwise
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype, promote
from nanocupy.core.recorder.dtypes import floating
from nanocupy.core.recorder.graph import Op, Spec
from nanocupy.core.recorder.shapes import flat, reshape, slice_axis, squeeze
from nanocupy.core.recorder.specs import (
    Axes,
    elements,
    normal_axes,
    normal_axis,
    reduced,
    same_spec,
    upcast,
    whole_number,
)
from nanocupy.dtypes import uint32


def _indices(spec: Spec, **_: Any) -> Spec:
    return spec[0], uint32


# Partitions are sorted outright: that puts the kth element in its place, too.
_SORT = Op("sort", same_spec, lambda x, *, axis: np.sort(upcast(x), axis).astype(x.dtype))
_ARGSORT = Op(
    "argsort",
    _indices,
    lambda x, *, axis: np.argsort(upcast(x), axis, kind="stable").astype(uint32),
    rowwise.along("argsort"),
    row_wise=True,
)
_SEARCH = Op(
    "searchsorted",
    lambda x, values, *, side: (values[0], uint32),
    lambda x, values, *, side: np.searchsorted(upcast(x), upcast(values), side).astype(uint32),
)


def sort(x: Any, /, axis: int | None = -1) -> array:
    """`numpy.sort`."""
    x, axis = flat(x, axis)
    return record(_SORT, x, axis=normal_axis("sort", axis, x.ndim))


def argsort(x: Any, /, axis: int | None = -1) -> array:
    """The indices that sort x, uint32; equals stay in order."""
    x, axis = flat(x, axis)
    return record(_ARGSORT, x, axis=normal_axis("argsort", axis, x.ndim))


def partition(x: Any, /, kth: int, axis: int | None = -1) -> array:
    """x with the kth element where sorting puts it, none before it greater, none after less."""
    x, axis = flat(x, axis)
    normal_axis("partition", kth, x.shape[axis])
    return sort(x, axis)


def argpartition(x: Any, /, kth: int, axis: int | None = -1) -> array:
    """The indices that `partition` x."""
    x, axis = flat(x, axis)
    normal_axis("argpartition", kth, x.shape[axis])
    return argsort(x, axis)


def topk(x: Any, /, k: int, axis: int | None = -1) -> array:
    """The k largest, in ascending order."""
    x, axis = flat(x, axis)
    place = normal_axis("topk", axis, x.ndim)
    length, k = x.shape[place], whole_number("topk", "k", k)
    if not 0 <= k <= length:
        raise ValueError(f"[topk] k={k} of an axis of length {length}")
    return slice_axis(sort(x, place), place, length - k, length)


def median(x: Any, /, axis: Axes = None, keepdims: bool = False) -> array:
    """The middle of the sorted elements, or the mean of the two; NaN if one is NaN."""
    x = as_array(x)
    x = astype(x, floating(x.dtype))
    axes = normal_axes("median", axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    along = reshape(
        x.transpose(*rest, *axes),
        [*(x.shape[i] for i in rest), elements([x.shape[a] for a in axes])],
    )
    length = along.shape[-1]
    if not length:
        raise ValueError(f"[median] of no elements: axis {axis} of shape {x.shape}")
    last = len(rest)
    ordered = sort(along)
    middle = mean(slice_axis(ordered, last, (length - 1) // 2, length // 2 + 1), -1)
    largest = slice_axis(ordered, last, length - 1, length)  # where NaN comes
    middle = where(isnan(squeeze(largest, last)), array(np.nan, x.dtype), middle)
    return reshape(middle, reduced(x.shape, axes, keepdims))


def searchsorted(sorted_sequence: Any, values: Any, /, side: str = "left") -> array:
    """Where values would go into a sorted sequence of one dimension, uint32."""
    if side not in ("left", "right"):
        raise ValueError(f"[searchsorted] side={side!r}: expected 'left' or 'right'")
    x, values = promote((as_array(sorted_sequence), as_array(values)))
    if x.ndim != 1:
        raise NotImplementedError(f"[searchsorted] in {x.ndim} dimensions")
    return record(_SEARCH, x, values, side=side)
