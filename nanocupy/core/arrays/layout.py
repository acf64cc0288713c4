"""Arrays rearranged, repeated and put together, as `mlx.core` does it: of NumPy's functions, or of
reshape and transpose."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from nanocupy.core.arrays.creation import checked_shape
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import checked_cast
from nanocupy.core.recorder.graph import Op, Spec
from nanocupy.core.recorder.shapes import expand_dims, flat, reshape, slice_axis, squeeze, transpose
from nanocupy.core.recorder.specs import (
    Axes,
    as_ints,
    as_list,
    blank,
    broadcast,
    normal_axes,
    normal_axis,
    resized,
    same_spec,
    whole_number,
)

# ---- the same elements seen in another way

BROADCAST = Op(
    "broadcast_to",
    lambda spec, *, shape: (shape, spec[1]),
    lambda x, *, shape: np.broadcast_to(x, shape),
    moves=True,
)


def view_op(name: str, function: Callable[..., np.ndarray]) -> Callable[..., array]:
    """Return an operation whose NumPy form `function` is a view."""

    def infer(spec: Spec, **attrs: Any) -> Spec:
        view = function(blank(spec), **attrs)
        return view.shape, view.dtype

    op = Op(name, infer, function)
    return partial(_record, op)


def _record(op: Op, x: Any, **attrs: Any) -> array:
    return record(op, x, **attrs)


_DIAGONAL = view_op("diagonal", lambda x, **how: x.diagonal(**how))
_FLIP = view_op("flip", lambda x, *, axis: np.flip(x, axis))
_VIEW = Op(
    "view",
    lambda spec, *, dtype: (_view_shape(spec[0], spec[1], dtype), dtype),
    lambda x, *, dtype: np.asarray(x, order="C").view(dtype),
)


def broadcast_to(x: Any, /, shape: Sequence[int]) -> array:
    """`numpy.broadcast_to`."""
    x = as_array(x)
    wanted = broadcast(
        x.shape, as_ints("broadcast_to", shape)
    )  # MLX, too, lets dimensions of one stay larger
    return x if wanted == x.shape else record(BROADCAST, x, shape=wanted)


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """`numpy.broadcast_shapes`."""
    if not shapes:
        raise ValueError("[broadcast_shapes] give a shape")
    return broadcast(*(tuple(s) for s in shapes))


def broadcast_arrays(*arrays: Any) -> list[array]:
    """`numpy.broadcast_arrays`."""
    values = [as_array(x) for x in arrays]
    shape = broadcast(*(x.shape for x in values)) if values else ()
    return [broadcast_to(x, shape) for x in values]


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> array:
    """`numpy.diagonal`."""
    return _DIAGONAL(x, offset=offset, axis1=axis1, axis2=axis2)


def flip(x: Any, /, axis: Axes = None) -> array:
    """`numpy.flip`."""
    x = as_array(x)
    return _FLIP(x, axis=normal_axes("flip", axis, x.ndim))


def _view_shape(shape: tuple[int, ...], old: np.dtype[Any], new: np.dtype[Any]) -> tuple[int, ...]:
    if old.itemsize == new.itemsize:
        return shape
    if not shape or shape[-1] * old.itemsize % new.itemsize:
        raise ValueError(f"[view] {old} of shape {shape} as {new}")
    return (*shape[:-1], shape[-1] * old.itemsize // new.itemsize)


def view(x: Any, dtype: Any) -> array:
    """The bytes of x as another dtype."""
    return record(_VIEW, x, dtype=np.dtype(dtype))


_STRIDED = Op(
    "as_strided",
    lambda spec, *, shape, index: (shape, spec[1]),
    lambda x, *, shape, index: x.reshape(-1)[index],
)


def as_strided(
    x: Any, /, shape: Sequence[int] | None = None, strides: Sequence[int] | None = None,
    offset: int = 0,
) -> array:  # fmt: skip
    """Elements of x at strides, counted in elements of x as one dimension."""
    x = as_array(x)
    dims = x.shape if shape is None else checked_shape("as_strided", shape)
    if strides is None:
        strides = [math.prod(dims[i + 1 :]) for i in range(len(dims))]
    if len(strides) != len(dims):
        raise ValueError(f"[as_strided] strides {tuple(strides)} for {len(dims)} dimensions")
    steps = [(n - 1) * step for n, step in zip(dims, strides, strict=True)]
    first = offset + builtins.sum(min(s, 0) for s in steps)
    last = offset + builtins.sum(max(s, 0) for s in steps)
    if 0 not in dims and not 0 <= first <= last < x.size:
        raise ValueError(f"[as_strided] {dims} at {strides} from {offset}: x has {x.size} elements")
    index = np.full((1,) * len(dims), offset)
    for axis, (length, stride) in enumerate(zip(dims, strides, strict=True)):
        along = np.arange(length) * stride
        index = index + along.reshape([-1 if i == axis else 1 for i in range(len(dims))])
    return record(_STRIDED, x, shape=dims, index=index)


# ---- dimensions


def flatten(x: Any, /, start_axis: int = 0, end_axis: int = -1) -> array:
    """Some neighbouring dimensions as one."""
    x = as_array(x)
    if not x.ndim:
        return reshape(x, (1,))
    first, last = (a + x.ndim if a < 0 else a for a in (start_axis, end_axis))
    first, last = max(first, 0), min(last, x.ndim - 1)  # ends outside are moved inside
    if first > last:
        raise ValueError(f"[flatten] from {start_axis} to {end_axis} of {x.ndim} dimensions")
    inner = math.prod(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], inner, *x.shape[last + 1 :]))


def unflatten(x: Any, /, axis: int, shape: Sequence[int]) -> array:
    """One dimension as several."""
    x = as_array(x)
    place, dims = normal_axis("unflatten", axis, x.ndim), list(shape)
    if -1 in dims:
        known = math.prod(d for d in dims if d != -1)
        dims[dims.index(-1)] = x.shape[place] // known if known else 0
    if not dims or math.prod(dims) != x.shape[place]:
        raise ValueError(f"[unflatten] {x.shape[place]} elements to {tuple(shape)}")
    return reshape(x, (*x.shape[:place], *dims, *x.shape[place + 1 :]))


def moveaxis(x: Any, /, source: int, destination: int) -> array:
    """One dimension at another place, the others in their order."""
    x = as_array(x)
    source, destination = (normal_axis("moveaxis", a, x.ndim) for a in (source, destination))
    order = [i for i in range(x.ndim) if i != source]
    order.insert(destination, source)
    return transpose(x, order)


def swapaxes(x: Any, /, axis1: int, axis2: int) -> array:
    """Two dimensions in each other's place."""
    x = as_array(x)
    first, second = (normal_axis("swapaxes", a, x.ndim) for a in (axis1, axis2))
    order = list(range(x.ndim))
    order[first], order[second] = second, first
    return transpose(x, order)


def matrix_transpose(x: Any, /) -> array:
    """The last two dimensions in each other's place."""
    return swapaxes(x, -1, -2)


def _at_least(x: Any, ndim: int) -> array:
    """Ones before the dimensions; of three, the last one comes after."""
    x = as_array(x)
    if ndim == 3 and x.ndim in (1, 2):
        return expand_dims(x, (0, 2) if x.ndim == 1 else 2)
    return x if x.ndim >= ndim else reshape(x, (1,) * (ndim - x.ndim) + x.shape)


def _each(ndim: int, arrays: tuple[Any, ...]) -> Any:
    made = [_at_least(x, ndim) for x in arrays]
    return made[0] if len(made) == 1 else made


def atleast_1d(*arrays: Any) -> Any:
    """Arrays of one dimension or more: a list, or the one."""
    return _each(1, arrays)


def atleast_2d(*arrays: Any) -> Any:
    """Arrays of two dimensions or more: a list, or the one."""
    return _each(2, arrays)


def atleast_3d(*arrays: Any) -> Any:
    """Arrays of three dimensions or more: a list, or the one."""
    return _each(3, arrays)


# ---- put together, taken apart


def unstack(x: Any, /, *, axis: int = 0) -> tuple[array, ...]:
    """The parts of x along an axis, without it."""
    x = as_array(x)
    place = normal_axis("unstack", axis, x.ndim)
    return tuple(squeeze(slice_axis(x, place, i, i + 1), place) for i in range(int(x.shape[place])))


def meshgrid(*arrays: Any, sparse: bool = False, indexing: str = "xy") -> tuple[array, ...]:
    """`numpy.meshgrid`."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"[meshgrid] indexing={indexing!r}: expected 'xy' or 'ij'")
    if not arrays:
        return ()
    count = len(arrays)
    places = list(range(count))
    if indexing == "xy" and count > 1:
        places[:2] = 1, 0
    open_grid = [
        reshape(x, [-1 if i == place else 1 for i in range(count)])
        for x, place in zip(arrays, places, strict=True)
    ]
    return tuple(open_grid if sparse else broadcast_arrays(*open_grid))


# ---- repeated, shifted, surrounded


def repeat(x: Any, repeats: int, axis: int | None = None) -> array:
    """Each element so many times."""
    x, axis = flat(x, axis)
    place = normal_axis("repeat", axis, x.ndim)
    repeats = whole_number("repeat", "repeats", repeats, least=0)
    inner = expand_dims(x, place + 1)
    wide = broadcast_to(inner, resized(inner.shape, place + 1, repeats))
    return reshape(wide, resized(x.shape, place, x.shape[place] * repeats))


def tile(x: Any, reps: int | Sequence[int], /) -> array:
    """`numpy.tile`."""
    x = as_array(x)
    times = list(checked_shape("tile", reps))
    ndim = max(x.ndim, len(times))
    times = [1] * (ndim - len(times)) + times
    shape = (1,) * (ndim - x.ndim) + x.shape
    inner = reshape(x, [d for size in shape for d in (1, size)])
    dims = [d for pair in zip(times, shape, strict=True) for d in pair]
    return reshape(broadcast_to(inner, dims), [n * d for n, d in zip(times, shape, strict=True)])


_ROLL = Op("roll", same_spec, lambda x, *, shift, axis: np.roll(x, shift, axis))


def roll(x: Any, shift: int | Sequence[int], axis: Axes = None, /) -> array:
    """`numpy.roll`."""
    x = as_array(x)
    shifts = [whole_number("roll", "shift", n) for n in as_list(shift)]
    if axis is None:
        line = reshape(x, (x.size,))
        return reshape(record(_ROLL, line, shift=builtins.sum(shifts), axis=0), x.shape)
    axes = [normal_axis("roll", a, x.ndim) for a in as_list(axis)]
    if len(shifts) != len(axes) and 1 not in (len(shifts), len(axes)):
        raise ValueError(f"[roll] {len(shifts)} shifts along {len(axes)} axes: expected as many")
    return record(_ROLL, x, shift=shifts, axis=axes)


_MODES = ("constant", "edge", "reflect", "symmetric")
_PAD = Op(
    "pad",
    lambda x, value, *, width, mode: (
        tuple(a + d + b for d, (a, b) in zip(x[0], width, strict=True)),
        x[1],
    ),
    lambda x, value, *, width, mode: np.pad(
        x, width, mode, **({"constant_values": value} if mode == "constant" else {})
    ),
)


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> array:
    """`numpy.pad`, in mode "constant", "edge", "reflect" or "symmetric"."""
    x = as_array(x)
    if mode not in _MODES:
        raise ValueError(f"[pad] mode={str(mode)[:40]!r}: expected one of {_MODES}")
    if not x.ndim:
        return x
    width = _pad_width(pad_width, x.ndim)
    value = checked_cast(constant_values, x.dtype)
    if value.ndim:
        raise ValueError(f"[pad] constant_values of shape {value.shape}: expected a number")
    grown = [n for n, more in zip(x.shape, width.sum(1), strict=True) if more]
    if mode != "constant" and 0 in grown:
        raise ValueError(f"[pad] mode={mode!r} of shape {x.shape}: nothing to repeat")
    return record(_PAD, x, value, width=width, mode=mode)


def _pad_width(given: Any, ndim: int) -> np.ndarray:
    """[ndim, 2] of a number, (before, after), or one of these for each axis."""
    width = np.asarray(given)
    if width.dtype.kind not in "iu" or width.shape not in ((), (1,), (2,), (1, 2), (ndim, 2)):
        raise ValueError(
            f"[pad] pad_width={str(given)[:60]} for {ndim} dimensions: expected an int, (before, "
            "after), or a pair for each"
        )
    if width.min(initial=0) < 0:
        raise ValueError(f"[pad] pad_width={str(given)[:60]}: expected 0 or more")
    return np.broadcast_to(width, (ndim, 2))


# ---- made of these


_DIAG = Op(
    "diag",
    lambda spec, *, k: ((spec[0][0] + abs(k),) * 2, spec[1]),
    lambda x, *, k: np.diag(x, k),
)


def diag(x: Any, /, k: int = 0) -> array:
    """The kth diagonal of a matrix; of a vector, the matrix with it as that."""
    x = as_array(x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ValueError(f"[diag] of {x.ndim} dimensions: one or two")
    return record(_DIAG, x, k=k)


def contiguous(x: Any, /, allow_col_major: bool = False) -> array:
    """x: the memory layout of an array is not visible."""
    return as_array(x)


def depends(inputs: Any, dependencies: Any) -> Any:
    """The inputs: operations run in the order they were recorded."""
    return inputs
