"""The same elements in other places: reshape, transpose, slices, concatenate. As `mlx.core` has
them.

What stays inside a row costs nothing in a Program (see `lowering`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nanocupy.core.recorder import lowering, rowwise
from nanocupy.core.recorder.arrays import array, as_array, eval, record, recording
from nanocupy.core.recorder.casting import promote, rounded
from nanocupy.core.recorder.graph import CONSTANT, Op, Shape, Spec
from nanocupy.core.recorder.specs import (
    as_ints,
    as_list,
    normal_axes,
    normal_axis,
    resized,
    whole_number,
)
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
    """Return (x, axis); for axis None, x as one dimension and axis 0."""
    x = as_array(x)
    return (reshape(x, (x.size,)), 0) if axis is None else (x, axis)


def expand_dims(x: Any, axis: int | Sequence[int]) -> array:
    """Insert dimensions of one, at their places in the result."""
    x = as_array(x)
    count = len(as_list(axis))
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


def _joined(*specs: Spec, axis: int) -> Spec:
    shape, dtype = specs[0]
    for other, _ in specs[1:]:
        if len(other) != len(shape) or resized(other, axis, 0) != resized(shape, axis, 0):
            raise ValueError(f"[concatenate] shapes {[s for s, _ in specs]} along axis {axis}")
    return resized(shape, axis, int(np.sum([s[axis] for s, _ in specs]))), dtype


CONCATENATE = Op("concatenate", _joined, lambda *xs, axis: np.concatenate(xs, axis), moves=True)


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> array:
    """`numpy.concatenate`."""
    values = promote(list(arrays))
    if axis is None:
        values, axis = [flat(x, None)[0] for x in values], 0
    return record(CONCATENATE, *values, axis=normal_axis("concatenate", axis, values[0].ndim))


concat = concatenate


def stack(arrays: Sequence[Any], axis: int = 0) -> array:
    """`numpy.stack`."""
    return concatenate([expand_dims(x, axis) for x in promote(list(arrays))], axis)


# ---- x[...] of ints and slices

Slice = type(np.s_[:])


class IndexMismatch(IndexError, ValueError):
    """A key does not fit an array. NumPy raises IndexError here, and MLX ValueError."""


def _basic(part: Any) -> bool:
    if isinstance(part, Slice):
        return part.step in (None, 1)
    return part is None or part is ... or (isinstance(part, int) and not isinstance(part, bool))


def parts_of(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def is_basic(key: Any) -> bool:
    """Whether a key has ints, slices without a step, None and Ellipsis only."""
    return all(_basic(part) for part in parts_of(key))


def view_of(x: array, key: Any) -> array:
    """x[key] of ints, slices without a step, None and Ellipsis. In a Program a slice of one axis
    costs nothing."""
    parts = parts_of(key)
    used = len([p for p in parts if p is not None and p is not ...])
    if ... not in parts:
        parts = (*parts, ...)
    if used > x.ndim or parts.count(...) > 1:
        raise IndexMismatch(f"[getitem] {key} of an array with {x.ndim} dimensions")
    out, axis = x, 0
    for part in parts:
        if part is None:
            out = expand_dims(out, axis)
            axis += 1
        elif part is ...:
            axis += x.ndim - used
        elif isinstance(part, Slice):
            start, stop, _ = part.indices(int(out.shape[axis]))
            out, axis = slice_axis(out, axis, start, stop), axis + 1
        else:
            out = squeeze(_one(out, axis, int(part)), axis)
    return array(x.node) if out is x else out


def _one(x: array, axis: int, index: int) -> array:
    length = int(x.shape[axis])
    if not -length <= index < length:
        raise IndexMismatch(f"[getitem] index {index} of an axis of length {length}")
    return slice_axis(x, axis, index % length, index % length + 1)


# ---- take

TAKE = Op(
    "take",
    lambda x, i, *, axis, dtype=None, codes=None: rounded(
        ((*x[0][:axis], *i[0], *x[0][axis + 1 :]), x[1]), dtype, codes
    ),
    lambda x, i, *, axis, dtype=None: np.take(x, i, axis).astype(dtype or x.dtype),
    rowwise.take,
)


def take(x: Any, /, indices: Any, axis: int | None = None) -> array:
    """`numpy.take`."""
    x, axis = flat(x, axis)
    place, indices = normal_axis("take", axis, x.ndim), as_indices("take", indices)
    if indices.node.op is CONSTANT:
        check_indices("take", indices, int(x.shape[place]))
    return record(TAKE, x, indices, axis=place)


def check_indices(name: str, indices: array, length: int) -> None:
    """
    Raises:
        IndexMismatch: one is outside of an axis of this length, if they are known: those that a
            function under recording computes are looked at when it runs.
    """
    value = _known(indices)
    if value is None or not value.size:
        return
    low, high = int(value.min()), int(value.max())
    if not -length <= low <= high < length:
        raise IndexMismatch(
            f"[{name}] index {low if low < -length else high} of an axis of length {length}"
        )


def _known(x: array) -> np.ndarray | None:
    if x.node.op is not CONSTANT:
        if recording():
            return None
        try:
            eval(x)
        except NotImplementedError:  # of a Program
            return None
    return np.asarray(x.node.attrs["value"])


def as_indices(name: str, indices: Any) -> array:
    """An array of ints.

    Raises:
        ValueError: it is one of something else.
    """
    found = as_array(indices)
    if found.dtype.kind not in "iu":
        raise ValueError(f"[{name}] indices of {found.dtype}: expected ints")
    return found
