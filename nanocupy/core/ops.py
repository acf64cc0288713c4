"""Operations by NumPy's names and meanings, as `mlx.core` has them.

Most are one line: a NumPy function whose shape rule is NumPy itself, asked about empty arrays. The
few that a language model's step needs can also be lowered to kernels (see `lowering`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core import rowwise
from nanocupy.core.array import array, as_array, float32, int32, record, uint32
from nanocupy.core.dtypes import astype, floating, rounded, summed, together
from nanocupy.core.graph import Op, Shape, Spec, like_numpy
from nanocupy.core.shapes import getitem, reshape, setitem, split, squeeze, transpose
from nanocupy.device.base import Rows
from nanocupy.kernels.elementwise import gelu_reference

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


def _elementwise(function: Callable[..., Any], dtype: Any = None) -> Callable[..., Spec]:
    def infer(*specs: Spec, **attrs: Any) -> Spec:
        shape = _broadcast(*(s for s, _ in specs))
        kinds = [np.ones(1, d) for _, d in specs]
        return shape, np.dtype(dtype) if dtype else np.asarray(function(*kinds, **attrs)).dtype

    return infer


def _op(name: str, numpy: Callable[..., Any], lower: Any = None) -> Op:
    return Op(name, _elementwise(numpy), numpy, lower, row_wise=True)


# ---- elementwise


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


ADD = _op("add", np.add, rowwise.binary("add"))
MULTIPLY = _op("multiply", np.multiply, rowwise.product)
SILU = _op("silu", _silu, rowwise.unary("silu"))
GELU = _op("gelu", gelu_reference, rowwise.unary("gelu"))
TANH = _op("tanh", np.tanh, rowwise.unary("tanh"))
_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "subtract": np.subtract,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "negative": np.negative,
    "square": np.square,
    "abs": np.abs,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_invert": np.invert,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "where": np.where,
}
_FLOATING: dict[str, Callable[..., Any]] = {  # the result of ints is float32
    "divide": np.true_divide,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "logaddexp": np.logaddexp,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
}
_OPS = {name: _op(name, function) for name, function in (_ELEMENTWISE | _FLOATING).items()}
_OPS |= {"add": ADD, "multiply": MULTIPLY, "tanh": TANH}


def _function(name: str) -> Callable[..., array]:
    op = _OPS[name]

    def call(*values: Any) -> array:
        inputs = together(values)
        if name in _FLOATING:
            inputs = [astype(x, floating(x.dtype)) for x in inputs]
        return record(op, *inputs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`numpy.{name}` on arrays." if hasattr(np, name) else f"Elementwise {name}."
    return call


add, multiply, subtract, divide = (_function(n) for n in ("add", "multiply", "subtract", "divide"))
power, maximum, minimum, negative = (
    _function(n) for n in ("power", "maximum", "minimum", "negative")
)
exp, expm1, log, logaddexp = (_function(n) for n in ("exp", "expm1", "log", "logaddexp"))
sqrt, rsqrt, square, abs = (_function(n) for n in ("sqrt", "rsqrt", "square", "abs"))
sigmoid, tanh, sin, cos = (_function(n) for n in ("sigmoid", "tanh", "sin", "cos"))
equal, not_equal, less, less_equal, greater, greater_equal = (
    _function(n) for n in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
)
bitwise_and, bitwise_or, bitwise_invert = (
    _function(n) for n in ("bitwise_and", "bitwise_or", "bitwise_invert")
)


def where(condition: Any, x: Any, y: Any) -> array:
    """`numpy.where`."""
    return record(_OPS["where"], condition, *together((x, y)))


def clip(x: Any, low: Any, high: Any) -> array:
    """x, but at least `low` and at most `high`; None is no limit."""
    x = as_array(x) if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)


def silu(x: Any) -> array:
    """x * sigmoid(x)."""
    return record(SILU, x)


def gelu_approx(x: Any) -> array:
    """x * Phi(x) by the tanh formula, as Gemma has it."""
    return record(GELU, x)


# ---- reductions, products and casts: NumPy forms


def _reduce(name: str, becomes: Callable[[np.dtype[Any]], np.dtype[Any]]) -> Callable[..., array]:
    function = getattr(np, name)

    def run(x: np.ndarray, *, axis: Any, keepdims: bool) -> np.ndarray:
        return np.asarray(function(x, axis=axis, keepdims=keepdims)).astype(becomes(x.dtype))

    op = Op(name, like_numpy(run), run)

    def call(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> array:
        where = tuple(axis) if isinstance(axis, list) else axis
        return record(op, x, axis=where, keepdims=keepdims)

    call.__name__, call.__doc__ = name, f"`numpy.{name}`."
    return call


sum, mean = _reduce("sum", summed), _reduce("mean", floating)
max, min = (_reduce(n, lambda dtype: dtype) for n in ("max", "min"))
argmax, argmin = (_reduce(n, lambda _: uint32) for n in ("argmax", "argmin"))
_MATMUL = Op("matmul", like_numpy(np.matmul), np.matmul)
_SOFTMAX = Op(
    "softmax",
    lambda spec, *, axis: spec,
    lambda x, *, axis: (
        np.exp(x - (m := x.max(axis, keepdims=True))) / np.exp(x - m).sum(axis, keepdims=True)
    ),
)
_CONCATENATE = Op(
    "concatenate",
    like_numpy(lambda *xs, axis: np.concatenate(xs, axis)),
    lambda *xs, axis: np.concatenate(xs, axis),
)
TAKE = Op(
    "take",
    lambda x, i, *, axis, dtype=None, codes=None: rounded(
        ((*x[0][:axis], *i[0], *x[0][axis + 1 :]), x[1]), dtype, codes
    ),
    lambda x, i, *, axis, dtype=None: np.take(x, i, axis).astype(dtype or x.dtype),
    rowwise.take,
)


def matmul(x: Any, y: Any) -> array:
    """`numpy.matmul`."""
    return record(_MATMUL, x, y)


def softmax(x: Any, axis: int = -1, precise: bool = False) -> array:
    """exp(x) / sum(exp(x)) along an axis; `precise`: in float32, whatever x is."""
    x = as_array(x)
    kind = float32 if precise else floating(x.dtype)
    return astype(record(_SOFTMAX, astype(x, kind), axis=axis), floating(x.dtype))


def concatenate(arrays: Sequence[Any], axis: int = 0) -> array:
    """`numpy.concatenate`."""
    return record(_CONCATENATE, *together(arrays), axis=axis)


def take(x: Any, indices: Any, axis: int = 0) -> array:
    """`numpy.take`."""
    x = as_array(x)
    return record(TAKE, x, indices, axis=axis % x.ndim)


def full(shape: int | Sequence[int], value: Any, dtype: Any = None) -> array:
    """`value` everywhere; takes no memory until something writes it out."""
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    return array(np.broadcast_to(array(value, dtype).numpy(), dims))


def zeros(shape: int | Sequence[int], dtype: Any = float32) -> array:
    """`full` of zeros."""
    return full(shape, 0.0, dtype)


def ones(shape: int | Sequence[int], dtype: Any = float32) -> array:
    """`full` of ones."""
    return full(shape, 1.0, dtype)


def arange(*bounds: float, dtype: Any = None) -> array:
    """`numpy.arange`; int32 or float32 unless told."""
    values = np.arange(*bounds)
    return array(values.astype(dtype or (int32 if values.dtype.kind == "i" else float32)))


# ---- methods


def _reverse(function: Callable[..., array]) -> Callable[..., array]:
    return lambda self, other: function(other, self)


def _flexible(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape


def _at(x: array) -> Any:
    raise NotImplementedError("[array.at] updates at indices")


_METHODS: dict[str, Any] = {
    "__add__": add,
    "__radd__": _reverse(add),
    "__sub__": subtract,
    "__rsub__": _reverse(subtract),
    "__mul__": multiply,
    "__rmul__": _reverse(multiply),
    "__truediv__": divide,
    "__rtruediv__": _reverse(divide),
    "__pow__": power,
    "__rpow__": _reverse(power),
    "__and__": bitwise_and,
    "__or__": bitwise_or,
    "__invert__": bitwise_invert,
    "__neg__": negative,
    "__matmul__": matmul,
    "__eq__": equal,
    "__ne__": not_equal,
    "__lt__": less,
    "__le__": less_equal,
    "__gt__": greater,
    "__ge__": greater_equal,
    "__getitem__": getitem,
    "__setitem__": setitem,
    "at": property(_at),
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
