"""Operations by NumPy's names and meanings, as `mlx.core` has them.

Most are one line: a NumPy function whose shape rule is NumPy itself, asked about empty arrays. The
few that a language model's step needs can also be lowered to kernels (see `lowering`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nanocupy.core import lowering
from nanocupy.core.array import array, as_array, float32, int32, record
from nanocupy.core.graph import Op, Rows, Shape, Spec

# ---- shape rules


def _broadcast(*shapes: Shape) -> Shape:
    """NumPy's rule, with a symbolic number of rows kept symbolic."""
    plain = np.broadcast_shapes(*(tuple(int(d) for d in s) for s in shapes))
    out: list[int] = list(plain)
    for shape in shapes:
        for place, dim in enumerate(reversed(shape), 1):
            if isinstance(dim, Rows):
                out[-place] = dim
    return tuple(out)


def _like_numpy(function: Callable[..., Any]) -> Callable[..., Spec]:
    """Ask NumPy for the result's shape and dtype, on arrays of no memory."""

    def infer(*specs: Spec, **attrs: Any) -> Spec:
        blank = [np.broadcast_to(np.zeros((), d), tuple(int(n) for n in s)) for s, d in specs]
        out = np.asarray(function(*blank, **attrs))
        return out.shape, out.dtype

    return infer


def _elementwise(function: Callable[..., Any], dtype: Any = None) -> Callable[..., Spec]:
    def infer(*specs: Spec, **attrs: Any) -> Spec:
        shape = _broadcast(*(s for s, _ in specs))
        kinds = [np.zeros(1, d) for _, d in specs]
        return shape, np.dtype(dtype) if dtype else np.asarray(function(*kinds, **attrs)).dtype

    return infer


def _op(name: str, numpy: Callable[..., Any], lower: Any = None) -> Op:
    return Op(name, _elementwise(numpy), numpy, lower, row_wise=True)


# ---- elementwise


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


ADD = _op("add", np.add, lowering.binary("add"))
MULTIPLY = _op("multiply", np.multiply, lowering.binary("mul"))
SILU = _op("silu", _silu, lowering.unary("silu"))
_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "subtract": np.subtract,
    "divide": np.true_divide,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "negative": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "abs": np.abs,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "where": np.where,
}
_OPS = {name: _op(name, function) for name, function in _ELEMENTWISE.items()}
_OPS |= {"add": ADD, "multiply": MULTIPLY}


def _weak(x: Any, y: Any) -> tuple[array, array]:
    """A Python scalar takes the dtype of the array it meets, as in MLX."""
    if isinstance(x, array) and isinstance(y, bool | int | float):
        return x, array(y, x.dtype if x.dtype.kind in "fV" or isinstance(y, int) else float32)
    if isinstance(y, array) and isinstance(x, bool | int | float):
        other, this = _weak(y, x)
        return this, other
    return as_array(x), as_array(y)


def _function(name: str) -> Callable[..., array]:
    op = _OPS[name]

    def call(*values: Any) -> array:
        return record(op, *(_weak(*values) if len(values) == 2 else values))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`numpy.{name}` on arrays." if hasattr(np, name) else f"Elementwise {name}."
    return call


add, multiply, subtract, divide = (_function(n) for n in ("add", "multiply", "subtract", "divide"))
power, maximum, minimum, negative = (
    _function(n) for n in ("power", "maximum", "minimum", "negative")
)
exp, log, sqrt, rsqrt, square = (_function(n) for n in ("exp", "log", "sqrt", "rsqrt", "square"))
abs, sigmoid, tanh, sin, cos = (_function(n) for n in ("abs", "sigmoid", "tanh", "sin", "cos"))
equal, not_equal, less, less_equal, greater, greater_equal = (
    _function(n) for n in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
)
where = _function("where")


def silu(x: Any) -> array:
    """x * sigmoid(x)."""
    return record(SILU, x)


# ---- reductions, products and casts: NumPy forms


def _reduce(name: str) -> Callable[..., array]:
    function = getattr(np, name)
    op = Op(name, _like_numpy(function), function)

    def call(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> array:
        where = tuple(axis) if isinstance(axis, list) else axis
        return record(op, x, axis=where, keepdims=keepdims)

    call.__name__, call.__doc__ = name, f"`numpy.{name}`."
    return call


sum, mean, max, min, argmax, argmin = (
    _reduce(n) for n in ("sum", "mean", "max", "min", "argmax", "argmin")
)
_MATMUL = Op("matmul", _like_numpy(np.matmul), np.matmul)
_ASTYPE = Op("astype", lambda spec, *, dtype: (spec[0], dtype), lambda x, *, dtype: x.astype(dtype))
_SOFTMAX = Op(
    "softmax",
    lambda spec, *, axis: spec,
    lambda x, *, axis: (
        np.exp(x - (m := x.max(axis, keepdims=True))) / np.exp(x - m).sum(axis, keepdims=True)
    ),
)
_CONCATENATE = Op(
    "concatenate",
    _like_numpy(lambda *xs, axis: np.concatenate(xs, axis)),
    lambda *xs, axis: np.concatenate(xs, axis),
)
TAKE = Op(
    "take",
    lambda x, i, *, axis: ((*x[0][:axis], *i[0], *x[0][axis + 1 :]), x[1]),
    lambda x, i, *, axis: np.take(x, i, axis),
    lowering.take,
)
_GETITEM = Op("getitem", _like_numpy(lambda x, *, key: x[key]), lambda x, *, key: x[key])


def matmul(x: Any, y: Any) -> array:
    """`numpy.matmul`."""
    return record(_MATMUL, x, y)


def softmax(x: Any, axis: int = -1) -> array:
    """exp(x) / sum(exp(x)) along an axis."""
    return record(_SOFTMAX, x, axis=axis)


def concatenate(arrays: Sequence[Any], axis: int = 0) -> array:
    """`numpy.concatenate`."""
    return record(_CONCATENATE, *arrays, axis=axis)


def take(x: Any, indices: Any, axis: int = 0) -> array:
    """`numpy.take`."""
    x = as_array(x)
    return record(TAKE, x, indices, axis=axis % x.ndim)


def astype(x: Any, dtype: Any) -> array:
    """x in another dtype; x itself if it has it already."""
    x = as_array(x)
    return x if x.dtype == np.dtype(dtype) else record(_ASTYPE, x, dtype=np.dtype(dtype))


def zeros(shape: int | Sequence[int], dtype: Any = float32) -> array:
    """Zeros that take no memory until something writes them out."""
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    return array(np.broadcast_to(np.zeros((), dtype), dims))


def ones(shape: int | Sequence[int], dtype: Any = float32) -> array:
    """Ones that take no memory until something writes them out."""
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    return array(np.broadcast_to(np.ones((), dtype), dims))


def arange(*bounds: float, dtype: Any = None) -> array:
    """`numpy.arange`; int32 or float32 unless told."""
    values = np.arange(*bounds)
    return array(values.astype(dtype or (int32 if values.dtype.kind == "i" else float32)))


# ---- shapes


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


def expand_dims(x: Any, axis: int) -> array:
    """Insert a dimension of one."""
    x = as_array(x)
    place = axis % (x.ndim + 1)
    return reshape(x, (*x.shape[:place], 1, *x.shape[place:]))


def squeeze(x: Any, axis: int) -> array:
    """Remove a dimension of one."""
    x = as_array(x)
    place = axis % x.ndim
    if x.shape[place] != 1:
        raise ValueError(f"[squeeze] axis {axis} of shape {x.shape} is not one")
    return reshape(x, (*x.shape[:place], *x.shape[place + 1 :]))


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
    return record(SLICE, x, axis=axis, start=start, stop=stop)


def getitem(x: array, key: Any) -> array:
    """Basic and advanced indexing; a slice of one axis costs nothing in a Program."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(p is None for p in parts):
        out = getitem(x, tuple(slice(None) if p is None else p for p in parts if p is not None))
        for place, part in enumerate(parts):
            out = expand_dims(out, place) if part is None else out
        return out
    plain = tuple(p.numpy() if isinstance(p, array) else p for p in parts)
    cut = [(i, p) for i, p in enumerate(plain) if p != slice(None)] if _basic(plain) else None
    if cut == []:
        return x
    if cut and len(cut) == 1:
        axis, part = cut[0]
        start, stop, _ = part.indices(int(x.shape[axis]))
        return slice_axis(x, axis, start, stop)
    return record(_GETITEM, x, key=plain if len(plain) > 1 else plain[0])


def _basic(key: tuple[Any, ...]) -> bool:
    return all(isinstance(p, slice) and p.step in (None, 1) for p in key)


# ---- methods


def _reverse(function: Callable[..., array]) -> Callable[..., array]:
    return lambda self, other: function(other, self)


def _flexible(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape


_METHODS: dict[str, Callable[..., Any]] = {
    "__add__": add,
    "__radd__": _reverse(add),
    "__sub__": subtract,
    "__rsub__": _reverse(subtract),
    "__mul__": multiply,
    "__rmul__": _reverse(multiply),
    "__truediv__": divide,
    "__rtruediv__": _reverse(divide),
    "__pow__": power,
    "__neg__": negative,
    "__matmul__": matmul,
    "__eq__": equal,
    "__ne__": not_equal,
    "__lt__": less,
    "__le__": less_equal,
    "__gt__": greater,
    "__ge__": greater_equal,
    "__getitem__": getitem,
    "astype": astype,
    "reshape": lambda self, *shape: reshape(self, _flexible(shape)),
    "transpose": lambda self, *axes: transpose(self, _flexible(axes)),
    "squeeze": squeeze,
    "sum": sum,
    "mean": mean,
    "max": max,
    "min": min,
    "argmax": argmax,
    "split": split,
}
for _name, _method in _METHODS.items():
    setattr(array, _name, _method)
