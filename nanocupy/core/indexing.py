"""Elements by index: `x[...]`, `x[...] = v`, `x.at[...]`, take and put. As `mlx.core` has them.

Slices, ints, None and Ellipsis are views where they can be; arrays of ints gather. An index outside
of x is an error when the value is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core import rowwise
from nanocupy.core.array import array, as_array, bool_, record
from nanocupy.core.dtypes import astype, rounded
from nanocupy.core.graph import Op, Spec
from nanocupy.core.shapes import expand_dims, flat, reshape, slice_axis, squeeze
from nanocupy.core.specs import blank, broadcast, normal_axis, resized

_Slice = type(np.s_[:])  # `slice` is an operation here

# ---- reading


class _Input:
    """Stands in a key for an array of indices that is an input of the operation."""


_INPUT = _Input()


def _filled(key: tuple[Any, ...], arrays: Sequence[np.ndarray]) -> tuple[Any, ...]:
    left = iter(arrays)
    return tuple(next(left) if part is _INPUT else part for part in key)


def _item_spec(x: Spec, *arrays: Spec, key: tuple[Any, ...]) -> Spec:
    """What NumPy says of arrays that take no memory."""
    view = blank((x[0], np.dtype(bool_)))[_filled(key, [blank(a) for a in arrays])]
    return view.shape, x[1]


_GETITEM = Op("getitem", _item_spec, lambda x, *arrays, key: x[_filled(key, arrays)])


def getitem(x: array, key: Any) -> array:
    """Basic and advanced indexing; a slice of one axis costs nothing in a Program."""
    parts = key if isinstance(key, tuple) else (key,)
    if not all(_basic(p) for p in parts):
        template, arrays = _key(parts, x.ndim)
        return record(_GETITEM, x, *arrays, key=template)
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
        elif isinstance(part, _Slice):
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


def _key(parts: tuple[Any, ...], ndim: int) -> tuple[tuple[Any, ...], list[array]]:
    """The key with arrays of ints left out, and those arrays. A mask is looked at: it decides about
    a shape."""
    key, arrays = [], []
    for part in parts:
        if isinstance(part, list | np.ndarray):
            part = array(part)
        if not isinstance(part, array):
            key.append(part)
        elif part.dtype == bool_:
            key.append(part.numpy())
        elif part.dtype.kind not in "iu":
            raise IndexError(f"[getitem] indices are ints or bools, not {part.dtype}")
        else:
            key.append(_INPUT)
            arrays.append(part)
    return _spelt_out(key, ndim), arrays


def _spelt_out(key: list[Any], ndim: int) -> tuple[Any, ...]:
    """The key with slices for its Ellipsis: one that stands for none does not keep arrays apart."""
    places = [i for i, part in enumerate(key) if part is ...]
    if not places:
        return tuple(key)
    used = sum(getattr(part, "ndim", 1) for part in key if part is not None and part is not ...)
    if len(places) > 1 or used > ndim:
        raise IndexError(f"[getitem] {key} of an array with {ndim} dimensions")
    return (*key[: places[0]], *[_Slice(None)] * (ndim - used), *key[places[0] + 1 :])


def _basic(part: Any) -> bool:
    """Whether the part of a key is a view of one piece."""
    if isinstance(part, _Slice):
        return part.step in (None, 1)
    return part is None or part is ... or (isinstance(part, int) and not isinstance(part, bool))


# ---- writing


def _updated(
    x: np.ndarray, value: np.ndarray, *arrays: np.ndarray, key: tuple[Any, ...], how: Any
) -> np.ndarray:
    """A copy of x with `how` applied at the key: None assigns, a ufunc counts every index.

    Ints are looked up first, as in MLX: so they do not count among the arrays of indices, whose
    dimensions come first where a slice stands between them.
    """
    out = x.copy()
    at_ints: list[Any] = []
    for part in key:
        if _is_int(part):
            at_ints.append(part)
        elif part is not None:
            at_ints += [_Slice(None)] * getattr(part, "ndim", 1)
    place = out[(*at_ints, ...)]  # the Ellipsis makes it a view, even of one element
    where = _filled(tuple(p for p in key if not _is_int(p)), arrays)
    if how is None:
        place[where] = value
    else:
        how.at(place, where, value)
    return out


def _is_int(part: Any) -> bool:
    return isinstance(part, int | np.integer) and not isinstance(part, bool)


SETITEM = Op("setitem", lambda x, value, *arrays, key, how: x, _updated)


def updated(x: array, key: Any, value: Any, how: Any = None) -> array:
    template, arrays = _key(key if isinstance(key, tuple) else (key,), x.ndim)
    value = _without_ones(astype(value, x.dtype))
    return record(SETITEM, x, value, *arrays, key=template, how=how)


def _without_ones(value: array) -> array:
    """MLX lets an update have more dimensions than its place, if they are of one."""
    extra = 0
    while extra < value.ndim and value.shape[extra] == 1:
        extra += 1
    return reshape(value, value.shape[extra:]) if extra else value


def setitem(x: array, key: Any, value: Any) -> None:
    """x[key] = value: from now on `x` is a new array; what was made of the old one stays."""
    x.node = updated(x, key, value).node


class ArrayAt:
    """`x.at[key].add(v)` and its like: x with every index of the key updated, also where it comes
    twice."""

    def __init__(self, x: array, key: Any = None) -> None:
        self._x, self._key = x, key

    def __getitem__(self, key: Any) -> ArrayAt:
        return ArrayAt(self._x, key)


def _update(ufunc: np.ufunc) -> Callable[[Any, Any], array]:
    def update(self: Any, value: Any) -> array:
        if self._key is None:
            raise ValueError("[at] give indices first: x.at[indices]")
        return updated(self._x, self._key, value, ufunc)

    return update


for _name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
    setattr(ArrayAt, _name, _update(getattr(np, _name)))

# ---- along an axis

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
    return record(TAKE, x, indices, axis=normal_axis("take", axis, x.ndim))


def _along(x: Spec, i: Spec, *, axis: int) -> Spec:
    return resized(broadcast(resized(x[0], axis, 1), resized(i[0], axis, 1)), axis, i[0][axis]), x[
        1
    ]


def _places(x: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """x and the indices with their other dimensions made equal."""
    shape = broadcast(resized(x.shape, axis, 1), resized(indices.shape, axis, 1))
    return (
        np.broadcast_to(x, resized(shape, axis, x.shape[axis])),
        np.broadcast_to(indices, resized(shape, axis, indices.shape[axis])),
    )


def _take_along(x: np.ndarray, indices: np.ndarray, *, axis: int) -> np.ndarray:
    return np.take_along_axis(*_places(x, indices, axis), axis)


def _put_along(x: np.ndarray, indices: np.ndarray, values: np.ndarray, *, axis: int) -> np.ndarray:
    out, (_, places) = x.copy(), _places(x, indices, axis)
    np.put_along_axis(out, places, np.broadcast_to(values, places.shape), axis)
    return out


_TAKE_ALONG = Op("take_along_axis", _along, _take_along, rowwise.take_along, row_wise=True)
_PUT_ALONG = Op("put_along_axis", lambda x, *_, axis: x, _put_along)


def take_along_axis(x: Any, /, indices: Any, axis: int | None = -1) -> array:
    """`numpy.take_along_axis`."""
    x, place = flat(x, axis)
    indices = flat(indices, axis)[0]
    return record(_TAKE_ALONG, x, indices, axis=normal_axis("take_along_axis", place, x.ndim))


def put_along_axis(x: Any, /, indices: Any, values: Any, axis: int | None = None) -> array:
    """x with values at indices along an axis."""
    whole = as_array(x)
    x, place = flat(whole, axis)
    places, values = flat(indices, axis)[0], astype(values, x.dtype)
    values = flat(values, None)[0] if axis is None and values.ndim else values
    place = normal_axis("put_along_axis", place, x.ndim)
    return reshape(record(_PUT_ALONG, x, places, values, axis=place), whole.shape)


# ---- slices that start where an array says


def _window(shape: tuple[int, ...], start: np.ndarray, axes: Any, sizes: Any) -> tuple[Any, ...]:
    key = [_Slice(None)] * len(shape)
    for first, axis, size in zip(start.reshape(-1).tolist(), axes, sizes, strict=True):
        first = min(max(first, 0), shape[axis] - size)
        key[axis] = _Slice(first, first + size)
    return tuple(key)


def _slice_spec(x: Spec, start: Spec, *, axes: Sequence[int], sizes: Sequence[int]) -> Spec:
    return tuple(sizes), x[1]


_SLICE_AT = Op(
    "slice",
    _slice_spec,
    lambda x, start, *, axes, sizes: x[_window(x.shape, start, axes, [sizes[a] for a in axes])],
)


def _put_slice(
    x: np.ndarray, update: np.ndarray, start: np.ndarray, *, axes: Sequence[int]
) -> np.ndarray:
    out = x.copy()
    out[_window(x.shape, start, axes, [update.shape[a] for a in axes])] = update
    return out


_UPDATE_AT = Op("slice_update", lambda x, *_, axes: x, _put_slice)


def slice(x: Any, start_indices: Any, axes: Sequence[int], slice_size: Sequence[int]) -> array:
    """A part of x of a fixed size, moved to where it lies inside.

    Args:
        start_indices: where it starts, along each of `axes`.
        slice_size: along every axis of x.
    """
    x = as_array(x)
    places = [normal_axis("slice", a, x.ndim) for a in axes]
    return record(_SLICE_AT, x, start_indices, axes=places, sizes=list(slice_size))


def slice_update(x: Any, update: Any, start_indices: Any, axes: Sequence[int]) -> array:
    """x with a part of it replaced; see `slice`."""
    x = as_array(x)
    places = [normal_axis("slice_update", a, x.ndim) for a in axes]
    return record(_UPDATE_AT, x, astype(update, x.dtype), start_indices, axes=places)
