"""Shape rules and evaluation in NumPy that the tables of operations share."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.exceptions import AxisError

from nanocupy.core.recorder.graph import Shape, Spec
from nanocupy.device.protocols import Rows
from nanocupy.dtypes import bool_, float32, int8

Becomes = Callable[[np.dtype[Any]], np.dtype[Any]]
Axes = int | Sequence[int] | None


def broadcast(*shapes: Shape) -> Shape:
    """NumPy's rule, with a symbolic number of rows kept symbolic."""
    first = shapes[0]
    if shapes.count(first) == len(shapes) and Rows not in [type(d) for s in shapes for d in s]:
        return first
    if len(shapes) == 2 and not (shapes[0] and shapes[1]):  # numbers fit everything
        return shapes[0] or shapes[1]
    plain = np.broadcast_shapes(*(tuple(int(d) for d in s) for s in shapes))
    out: list[int] = list(plain)
    for shape in shapes:
        for place, dim in enumerate(reversed(shape), 1):
            if isinstance(dim, Rows):
                out[-place] = dim
    return tuple(out)


def same_spec(spec: Spec, *_: Spec, **__: Any) -> Spec:
    """Return the spec of operations that change neither shape nor dtype."""
    return spec


def same_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype


def normal_axis(name: str, axis: int, ndim: int) -> int:
    """Return the axis counted from the front.

    Raises:
        AxisError: it is not there; a ValueError and an IndexError.
    """
    axis = whole_number(name, "axis", axis)
    if not -ndim <= axis < ndim:
        raise AxisError(f"[{name}] axis {axis} of an array with {ndim} dimensions")
    return axis % ndim


def as_list(value: Any) -> list[Any]:
    """Return a sequence as a list, anything else as a list of one."""
    return list(value) if isinstance(value, list | tuple | range) else [value]


def normal_axes(name: str, axis: Axes, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front; None is all of them."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(normal_axis(name, a, ndim) for a in as_list(axis))
    if len(set(axes)) < len(axes):
        raise ValueError(f"[{name}] axes {axis} name one dimension twice")
    return axes


def reduced(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape with dimensions reduced to one, or left out."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def resized(shape: Shape, axis: int, length: int) -> Shape:
    """The shape with another length along one axis."""
    return (*shape[:axis], length, *shape[axis + 1 :])


def whole_number(name: str, argument: str, value: Any, least: int | None = None) -> int:
    """Return an argument that must be an int (and no bool) of at least `least`.

    Raises:
        TypeError: it is none.
        ValueError: it is less.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"[{name}] {argument}={str(value)[:40]}: expected an int")
    number = operator.index(value)
    if least is not None and number < least:
        raise ValueError(f"[{name}] {argument}={number}: expected {least} or more")
    return number


def as_ints(name: str, shape: Any) -> tuple[int, ...]:
    """Return the numbers of a shape as ints; symbolic rows stay symbolic."""
    dims = tuple(shape)
    if all(isinstance(d, int) for d in dims):
        return dims
    return tuple(d if isinstance(d, int) else whole_number(name, "shape", d) for d in dims)


def elements(shape: Sequence[int]) -> int:
    return math.prod(int(d) for d in shape)


def upcast(x: np.ndarray) -> np.ndarray:
    """Return x as it is computed with: 16-bit floats in float32, bools as int8."""
    if x.dtype.kind in "fV" and x.dtype.itemsize < 4:
        return x.astype(float32)
    return x.astype(int8) if x.dtype == bool_ else x


def upcasting(function: Callable[..., Any], dtype: Any = None) -> Callable[..., np.ndarray]:
    """Return the function on `upcast` arrays, its result rounded to their dtype or another."""

    def run(*arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        inputs = [x if x.dtype is float32 else upcast(x) for x in arrays]
        value = np.asarray(function(*inputs, **attrs))
        return value.astype(arrays[0].dtype if dtype is None else dtype, copy=False)

    return run


_NOTHING = bytes(16)


def blank(spec: Spec) -> np.ndarray:
    """Return an array of this shape and dtype that takes no memory, to see what views look like."""
    shape, dtype = spec
    dims = tuple([int(n) for n in shape])
    return np.ndarray(dims, dtype, _NOTHING, 0, (0,) * len(dims))
