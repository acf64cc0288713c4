"""The same elements in other places: reshape, transpose, slices. As `mlx.core` has them.

What stays inside a row costs nothing in a Program (see `lowering`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nanocupy.core.recorder import lowering
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.graph import Op, Shape
from nanocupy.core.recorder.specs import as_ints, listed, normal_axes, normal_axis, whole_number
from nanocupy.device.protocols import Rows


def _reshape_shape(old: Shape, new: tuple[int, ...]) -> Shape:
    if -1 in new:
        known = int(np.prod([int(d) for d in new if d != -1], dtype=np.int64))
        total = int(np.prod([int(d) for d in old], dtype=np.int64))
        if known == 0 or total % known:
            raise ValueError(f"[reshape] cannot reshape {old} to {new}")
        rows = old[0] if old and isinstance(old[0], Rows) and new[0] == -1 else None
        left = rows if rows is not None and total // known == rows else total // known
        new = tuple(left if d == -1 else d for d in new)
    if np.prod([int(d) for d in new], dtype=np.int64) != np.prod(
        [int(d) for d in old], dtype=np.int64
    ):
        raise ValueError(f"[reshape] cannot reshape {old} to {new}: different sizes")
    return new


def _transposed(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(shape[a] for a in axes)


RESHAPE = Op(
    "reshape",
    lambda spec, *, shape: (shape, spec[1]),
    lambda x, *, shape: x.reshape(shape),
    alias=lowering.reshape,
    row_wise=True,
)
TRANSPOSE = Op(
    "transpose",
    lambda spec, *, axes: (_transposed(spec[0], axes), spec[1]),
    lambda x, *, axes: x.transpose(axes),
    alias=lowering.transpose,
    row_wise=True,
    moves=True,
)


def reshape(x: Any, shape: Sequence[int]) -> array:
    """`numpy.reshape`."""
    x = as_array(x)
    return record(RESHAPE, x, shape=_reshape_shape(x.shape, as_ints("reshape", shape)))


def transpose(x: Any, axes: Sequence[int] | None = None) -> array:
    """`numpy.transpose`."""
    x = as_array(x)
    order = tuple(range(x.ndim))[::-1] if not axes else normal_axes("transpose", axes, x.ndim)
    if len(order) != x.ndim:
        raise ValueError(f"[transpose] axes {axes} of an array with {x.ndim} dimensions")
    return record(TRANSPOSE, x, axes=order)


permute_dims = transpose


def flat(x: Any, axis: int | None) -> tuple[array, int]:
    """(x, axis); where axis is None, x as one dimension."""
    x = as_array(x)
    return (reshape(x, (x.size,)), 0) if axis is None else (x, axis)


def expand_dims(x: Any, axis: int | Sequence[int]) -> array:
    """Insert dimensions of one, at their places in the result."""
    x = as_array(x)
    count = len(listed(axis))
    shape = list(x.shape)
    for place in sorted(normal_axes("expand_dims", axis, x.ndim + count)):
        shape.insert(place, 1)
    return reshape(x, shape)


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> array:
    """Remove dimensions of one: those named, or all."""
    x = as_array(x)
    ones = [i for i, d in enumerate(x.shape) if d == 1 and not isinstance(d, Rows)]
    gone = normal_axes("squeeze", ones if axis is None else axis, x.ndim)
    if not set(gone) <= set(ones):
        raise ValueError(f"[squeeze] axis {axis} of shape {x.shape} is not one")
    return reshape(x, [d for i, d in enumerate(x.shape) if i not in gone])


def split(x: Any, /, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[array]:
    """`numpy.split`: into equal parts, or at indices."""
    x, parts = as_array(x), indices_or_sections
    place = normal_axis("split", axis, x.ndim)
    length = int(x.shape[place])
    if not isinstance(parts, list | tuple):
        parts = whole_number("split", "indices_or_sections", parts, least=1)
        if length % parts:
            raise ValueError(f"[split] axis {axis} of length {length} into {parts} equal parts")
        parts = [length // parts * i for i in range(1, parts)]
    ends = [whole_number("split", "indices_or_sections", p) for p in parts]
    bounds = [0, *(slice(p).indices(length)[1] for p in ends), length]
    return [slice_axis(x, place, a, b) for a, b in pairwise(bounds)]


def _slice(x: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    return x[(slice(None),) * axis + (slice(start, stop),)]


SLICE = Op(
    "slice",
    lambda spec, *, axis, start, stop: (
        (*spec[0][:axis], stop - start, *spec[0][axis + 1 :]),
        spec[1],
    ),
    lambda x, *, axis, start, stop: _slice(x, axis, start, stop),
    alias=lowering.slice_axis,
    row_wise=True,
    moves=True,
)


def slice_axis(x: Any, axis: int, start: int, stop: int) -> array:
    """x[..., start:stop, ...] along one axis."""
    x = as_array(x)
    if (start, stop) == (0, x.shape[axis]):
        return x
    return record(SLICE, x, axis=axis, start=start, stop=max(start, stop))
