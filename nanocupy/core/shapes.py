"""The same elements in other places: reshape, transpose, slices, indexing. As `mlx.core` has them.

What stays inside a row costs nothing in a Program (see `lowering`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nanocupy.core import lowering
from nanocupy.core.array import array, as_array, record
from nanocupy.core.dtypes import astype
from nanocupy.core.graph import Op, Shape, like_numpy
from nanocupy.device.base import Rows


def _reshape_shape(old: Shape, new: tuple[int, ...]) -> Shape:
    if -1 in new:
        known = int(np.prod([int(d) for d in new if d != -1], dtype=np.int64))
        total = int(np.prod([int(d) for d in old], dtype=np.int64))
        if known == 0 or total % known:
            raise ValueError(f"[reshape] cannot reshape {old} to {new}")
        new = tuple(total // known if d == -1 else d for d in new)
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
)


def reshape(x: Any, shape: Sequence[int]) -> array:
    """`numpy.reshape`."""
    x = as_array(x)
    return record(RESHAPE, x, shape=_reshape_shape(x.shape, tuple(shape)))


def transpose(x: Any, axes: Sequence[int] | None = None) -> array:
    """`numpy.transpose`."""
    x = as_array(x)
    order = tuple(range(x.ndim))[::-1] if not axes else tuple(a % x.ndim for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"[transpose] axes {axes} of an array with {x.ndim} dimensions")
    return record(TRANSPOSE, x, axes=order)


def expand_dims(x: Any, axis: int | Sequence[int]) -> array:
    """Insert dimensions of one, at their places in the result."""
    x = as_array(x)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    shape = list(x.shape)
    for place in sorted(a % (x.ndim + len(axes)) for a in axes):
        shape.insert(place, 1)
    return reshape(x, shape)


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> array:
    """Remove dimensions of one: those named, or all."""
    x = as_array(x)
    ones = [i for i, d in enumerate(x.shape) if d == 1 and not isinstance(d, Rows)]
    axes = ones if axis is None else [axis] if isinstance(axis, int) else list(axis)
    gone = [a % x.ndim for a in axes]
    if not set(gone) <= set(ones):
        raise ValueError(f"[squeeze] axis {axis} of shape {x.shape} is not one")
    return reshape(x, [d for i, d in enumerate(x.shape) if i not in gone])


def split(x: Any, parts: int | Sequence[int], axis: int = 0) -> list[array]:
    """`numpy.split`: into equal parts, or at indices."""
    x = as_array(x)
    place, length = axis % x.ndim, int(x.shape[axis % x.ndim])
    if isinstance(parts, int):
        if length % parts:
            raise ValueError(f"[split] axis {axis} of length {length} into {parts} equal parts")
        parts = [length // parts * i for i in range(1, parts)]
    bounds = [0, *parts, length]
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
)


def slice_axis(x: Any, axis: int, start: int, stop: int) -> array:
    """x[..., start:stop, ...] along one axis."""
    x = as_array(x)
    if (start, stop) == (0, x.shape[axis]):
        return x
    return record(SLICE, x, axis=axis, start=start, stop=max(start, stop))


# ---- indexing


_GETITEM = Op("getitem", like_numpy(lambda x, *, key: x[key]), lambda x, *, key: x[key])


def getitem(x: array, key: Any) -> array:
    """Basic and advanced indexing; a slice of one axis costs nothing in a Program."""
    parts = _key(key)
    if not all(_basic(p) for p in parts):
        return record(_GETITEM, x, key=parts)
    used = len([p for p in parts if p is not None and p is not ...])
    if ... not in parts:
        parts = (*parts, ...)
    if used > x.ndim or parts.count(...) > 1:
        raise IndexError(f"[getitem] {key} of an array with {x.ndim} dimensions")
    out, axis = x, 0
    for part in parts:
        if part is None:
            out = expand_dims(out, axis)
            axis += 1
        elif part is ...:
            axis += x.ndim - used
        elif isinstance(part, slice):
            start, stop, _ = part.indices(int(out.shape[axis]))
            out, axis = slice_axis(out, axis, start, stop), axis + 1
        else:
            out = squeeze(_one(out, axis, int(part)), axis)
    return out


def _one(x: array, axis: int, index: int) -> array:
    length = int(x.shape[axis])
    if not -length <= index < length:
        raise IndexError(f"[getitem] index {index} of an axis of length {length}")
    return slice_axis(x, axis, index % length, index % length + 1)


def _key(key: Any) -> tuple[Any, ...]:
    """The parts of a key, as NumPy takes them."""
    parts = key if isinstance(key, tuple) else (key,)
    return tuple(p.numpy() if isinstance(p, array) else p for p in parts)


def _basic(part: Any) -> bool:
    """Whether the part of a key is a view of one piece."""
    if isinstance(part, slice):
        return part.step in (None, 1)
    return part is None or part is ... or (isinstance(part, int) and not isinstance(part, bool))


def _put(x: np.ndarray, value: np.ndarray, *, key: Any) -> np.ndarray:
    out = x.copy()
    out[key] = value
    return out


_SETITEM = Op("setitem", lambda x, value, *, key: x, _put)


def setitem(x: array, key: Any, value: Any) -> None:
    """x[key] = value: from now on `x` is a new array; what was made of the old one stays."""
    x.node = record(_SETITEM, x, astype(value, x.dtype), key=_key(key)).node
