"""Elements by arrays of indices: `x[...]`, `x[...] = v`, `x.at[...]`, along an axis. As `mlx.core`.

An index outside of x is an error at once where the indices are known, else when the value is
computed. Updates compute their indices to check them. (`recorder.shapes` has `x[...]` of ints and
slices, `recorder.gather` has `take`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core.arrays.keys import check_update, fill_key, place, split_key
from nanocupy.core.recorder import rowwise
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import checked_cast
from nanocupy.core.recorder.graph import Op, Spec
from nanocupy.core.recorder.shapes import Slice, as_indices, check_indices, flat, parts_of, reshape
from nanocupy.core.recorder.specs import (
    blank,
    broadcast,
    normal_axes,
    normal_axis,
    resized,
    whole_number,
)
from nanocupy.dtypes import bool_

# ---- reading


def _item_spec(x: Spec, *arrays: Spec, key: tuple[Any, ...]) -> Spec:
    """Infer the spec by indexing arrays that take no memory."""
    view = blank((x[0], np.dtype(bool_)))[fill_key(key, [blank(a) for a in arrays])]
    return view.shape, x[1]


_GETITEM = Op("getitem", _item_spec, lambda x, *arrays, key: x[fill_key(key, arrays)])


def gathered(x: array, key: Any) -> array:
    """x[key] where arrays of indices, masks or slices with a step are in the key."""
    template, arrays = split_key(parts_of(key), x.ndim)
    return record(_GETITEM, x, *arrays, key=template)


# ---- writing


def _updated(
    x: np.ndarray, value: np.ndarray, *arrays: np.ndarray, key: tuple[Any, ...], how: Any
) -> np.ndarray:
    """A copy of x with `how` applied at the key: None assigns, a ufunc counts every index."""
    out = x.copy()
    view, where = place(out, key, arrays)
    if how is None:
        view[where] = value
    else:
        how.at(view, where, value)
    return out


SETITEM = Op("setitem", lambda x, value, *arrays, key, how: x, _updated)


def updated(x: array, key: Any, value: Any, how: Any = None, name: str = "setitem") -> array:
    """Return x with a value at the key; raise at once if it does not fit."""
    template, arrays = split_key(parts_of(key), x.ndim)
    value = _without_ones(checked_cast(value, x.dtype))
    check_update(name, x, template, arrays, value.shape)
    return record(SETITEM, x, value, *arrays, key=template, how=how)


def _without_ones(value: array) -> array:
    """MLX lets an update have more dimensions than its place, if they are of one."""
    extra = 0
    while extra < value.ndim and value.shape[extra] == 1:
        extra += 1
    return reshape(value, value.shape[extra:]) if extra else value


def setitem(x: array, key: Any, value: Any) -> None:
    """x[key] = value: the object `x` gets the new value; arrays made of the old one keep theirs."""
    x.node = updated(x, key, value).node


class ArrayAt:
    """`x.at[key].add(v)` and its like: x with every index of the key updated, also where it comes
    twice."""

    def __init__(self, x: array, *key: Any) -> None:
        self._x, self._key = x, key

    def __getitem__(self, key: Any) -> ArrayAt:
        return ArrayAt(self._x, key)


def _update(name: str) -> Callable[[Any, Any], array]:
    ufunc = getattr(np, name)

    def update(self: Any, value: Any) -> array:
        if not self._key:
            raise ValueError(f"[at] give indices first: x.at[indices].{name}(value)")
        return updated(self._x, self._key[0], value, ufunc, f"at.{name}")

    return update


for _name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
    setattr(ArrayAt, _name, _update(_name))

# ---- along an axis


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
    indices = _beside("take_along_axis", x, flat(as_indices("take_along_axis", indices), axis)[0])
    return record(_TAKE_ALONG, x, indices, axis=normal_axis("take_along_axis", place, x.ndim))


def put_along_axis(x: Any, /, indices: Any, values: Any, axis: int | None = None) -> array:
    """x with values at indices along an axis."""
    whole, name = as_array(x), "put_along_axis"
    x, where = flat(whole, axis)
    places, where = as_array(indices), normal_axis(name, where, x.ndim)
    if not places.size:
        return whole
    places = _beside(name, x, flat(as_indices(name, places), axis)[0])
    values = checked_cast(values, x.dtype)
    values = flat(values, None)[0] if axis is None and values.ndim else values
    check_indices(name, places, int(x.shape[where]))
    return reshape(record(_PUT_ALONG, x, places, values, axis=where), whole.shape)


def _beside(name: str, x: array, indices: array) -> array:
    """The indices, if they have as many dimensions as x."""
    if indices.ndim != x.ndim:
        raise ValueError(
            f"[{name}] indices of {indices.ndim} dimensions, x of {x.ndim}: expected as many"
        )
    return indices


# ---- slices that start where an array says


def _window(shape: tuple[int, ...], start: np.ndarray, axes: Any, sizes: Any) -> tuple[Any, ...]:
    key = [Slice(None)] * len(shape)
    for first, axis, size in zip(start.reshape(-1).tolist(), axes, sizes, strict=True):
        first = min(max(first, 0), shape[axis] - size)
        key[axis] = Slice(first, first + size)
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
    x, name = as_array(x), "slice"
    sizes = tuple(whole_number(name, "slice_size", n, least=0) for n in slice_size)
    if len(sizes) != x.ndim or any(n > d for n, d in zip(sizes, x.shape, strict=True)):
        raise ValueError(f"[{name}] slice_size={sizes} of shape {x.shape}")
    start, places = _start(name, x, start_indices, axes)
    return record(_SLICE_AT, x, start, axes=places, sizes=list(sizes))


def _start(name: str, x: array, start: Any, axes: Sequence[int]) -> tuple[array, list[int]]:
    """Where a slice starts, and along which axes: as many of both."""
    found = as_indices(name, start)
    places = list(normal_axes(name, list(axes), x.ndim))
    if found.size != len(places) or found.ndim > 1:
        raise ValueError(f"[{name}] {found.size} starts for {len(places)} axes: expected as many")
    return found, places


def slice_update(x: Any, update: Any, start_indices: Any, axes: Sequence[int]) -> array:
    """x with a part of it replaced; see `slice`."""
    x, name = as_array(x), "slice_update"
    value = checked_cast(update, x.dtype)
    if value.ndim > x.ndim:
        value = _without_ones(value)
    start, places = _start(name, x, start_indices, axes)
    sizes = (1,) * (x.ndim - value.ndim) + value.shape
    if value.ndim > x.ndim or any(n > d for n, d in zip(sizes, x.shape, strict=True)):
        raise ValueError(f"[{name}] update of shape {value.shape} for shape {x.shape}")
    return record(_UPDATE_AT, x, reshape(value, sizes), start, axes=places)
