"""Elementwise operations by NumPy's names and meanings, as `mlx.core` has them.

A table: an operation is one line with its name, its NumPy function where the name is not enough,
and the dtype of its result. Those of a step are in `core.recorder.elementwise`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nanocupy.core.maths import special
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype, promote
from nanocupy.core.recorder.dtypes import floating
from nanocupy.core.recorder.elementwise import add as add
from nanocupy.core.recorder.elementwise import elementwise_op, inputs
from nanocupy.core.recorder.elementwise import multiply as multiply
from nanocupy.core.recorder.graph import Op
from nanocupy.core.recorder.rowwise import kernel_or_chain, of_numbers, without_gaps
from nanocupy.core.recorder.specs import Becomes, broadcast, same_dtype, upcasting, whole_number
from nanocupy.dtypes import bool_, uint8
from nanocupy.kernels.chains import functions

_STEPS: dict[str, Any] = {
    "abs": functions.absolute,
    **{n: functions.rounding(n) for n in ("floor", "ceil", "trunc")},
    **{
        name: functions.comparison(op)
        for name, op in {
            "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt",
            "greater_equal": "ge",
        }.items()
    },
    **{f"logical_{op}": functions.logical(op) for op in ("and", "or", "xor")},
    **{
        name: getattr(functions, name)
        for name in (
            "square", "negative", "exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt",
            "reciprocal", "sigmoid", "erf", "tanh", "logical_not", "isnan", "isinf", "isfinite",
            "isposinf", "isneginf", "subtract", "divide", "floor_divide", "maximum", "minimum",
            "logaddexp", "sign",
        )
    },
}  # fmt: skip
# What the processor has no instruction for: everybody's approximation differs in the last bit.
_ROUNDED = {
    "exp", "expm1", "log", "log2", "log10", "log1p", "sigmoid", "erf", "tanh", "logaddexp",
}  # fmt: skip


def _op(name: str, function: Any, dtype: Any) -> Op:
    """The operation of NumPy's function, or of the one with this name, on numbers."""
    steps = _STEPS.get(name)
    return elementwise_op(
        name,
        upcasting(function or getattr(np, name), dtype),
        of_numbers(steps) if steps else None,
        dtype=dtype,
        rounded=name in _ROUNDED,
    )


def _unary(
    name: str, becomes: Becomes = same_dtype, function: Any = None, dtype: Any = None
) -> Callable[[Any], array]:
    """An operation of one array.

    Args:
        becomes: the dtype that the input is brought to.
        function: in NumPy. None: the one with this name.
        dtype: of the result; None: the input's.
    """
    op = _op(name, function, dtype)

    def call(a: Any) -> array:
        return record(op, *inputs(becomes, (a,)))

    return _named(call, name)


def _binary(
    name: str, becomes: Becomes = same_dtype, function: Any = None, dtype: Any = None
) -> Callable[[Any, Any], array]:
    """An operation of two arrays, which first become one dtype."""
    return _of_two(_op(name, function, dtype), becomes)


def _of_two(op: Op, becomes: Becomes) -> Callable[[Any, Any], array]:
    def call(a: Any, b: Any) -> array:
        return record(op, *inputs(becomes, (a, b)))

    return _named(call, op.name)


def _bitwise(name: str, step: str, becomes: Becomes) -> Callable[[Any, Any], array]:
    """An operation on the bits of two arrays."""
    return _of_two(elementwise_op(name, getattr(np, name), functions.bitwise(step)), becomes)


def _named(call: Any, name: str) -> Any:
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`numpy.{name}` on arrays." if hasattr(np, name) else f"Elementwise {name}."
    return call


# ---- which dtypes an operation takes


def _no_float(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind in "fV":
        raise ValueError(f"[{name}] takes ints or bools, not {dtype}")
    return dtype


def _shifted(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Bools are shifted as numbers, uint8."""
    return uint8 if dtype == bool_ else _no_float(name, dtype)


def _no_bool(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype == bool_:
        raise ValueError(f"[{name}] takes no bools: use logical_not")
    return dtype


# ---- functions that NumPy does not have, or not quite


def _floor_divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.floor(x / y) if x.dtype.kind == "f" else np.floor_divide(x, y)


def _powers(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of ints to the power of less than zero, 0."""
    if x.dtype.kind != "i":
        return np.power(x, y)
    below = y < 0
    return np.where(below, 0, np.power(x, np.where(below, 0, y)))


def _sign(x: np.ndarray) -> np.ndarray:
    """0 for NaN, too."""
    return (x > 0).astype(np.int8) - (x < 0)


def _whole(name: str) -> Callable[[Any], array]:
    """An operation that makes whole numbers: ints are that already."""
    function = getattr(np, name)
    return _unary(name, function=lambda x: function(x) if x.dtype.kind == "f" else x)


# ---- the table: one input

abs, sign = _unary("abs"), _unary("sign", function=_sign)
square = _unary("square")
negative = _unary("negative", partial(_no_bool, "negative"))
ceil, floor, trunc = _whole("ceil"), _whole("floor"), _whole("trunc")
exp, expm1 = _unary("exp", floating), _unary("expm1", floating)
log, log2 = _unary("log", floating), _unary("log2", floating)
log10, log1p = _unary("log10", floating), _unary("log1p", floating)
sqrt = _unary("sqrt", floating)
rsqrt = _unary("rsqrt", floating, lambda x: 1 / np.sqrt(x))
reciprocal = _unary("reciprocal", floating, lambda x: 1 / x)
sigmoid = _unary("sigmoid", floating, lambda x: 1 / (1 + np.exp(-x)))
erf = _unary("erf", floating, special.erf)
erfinv = _unary("erfinv", floating, special.erfinv)
sin, cos, tan = (_unary(n, floating) for n in ("sin", "cos", "tan"))
sinh, cosh = _unary("sinh", floating), _unary("cosh", floating)
tanh = _unary("tanh", floating)
arcsin, arccos, arctan = (_unary(n, floating) for n in ("arcsin", "arccos", "arctan"))
arcsinh, arccosh, arctanh = (_unary(n, floating) for n in ("arcsinh", "arccosh", "arctanh"))
asin, acos, atan, asinh, acosh, atanh = arcsin, arccos, arctan, arcsinh, arccosh, arctanh
degrees, radians = _unary("degrees", floating), _unary("radians", floating)
logical_not = _unary("logical_not", dtype=bool_)
isnan, isinf, isfinite = (_unary(n, dtype=bool_) for n in ("isnan", "isinf", "isfinite"))
isposinf = _unary("isposinf", function=lambda x: x == np.inf, dtype=bool_)
isneginf = _unary("isneginf", function=lambda x: x == -np.inf, dtype=bool_)

# ---- the table: two inputs

subtract, divide = _binary("subtract"), _binary("divide", floating)
_power = _binary("power", function=_powers)
floor_divide = _binary("floor_divide", function=_floor_divide)
remainder = _binary("remainder")
maximum, minimum = _binary("maximum"), _binary("minimum")
logaddexp, arctan2 = _binary("logaddexp", floating), _binary("arctan2", floating)
atan2 = arctan2
equal, not_equal = _binary("equal", dtype=bool_), _binary("not_equal", dtype=bool_)
less, less_equal = _binary("less", dtype=bool_), _binary("less_equal", dtype=bool_)
greater, greater_equal = _binary("greater", dtype=bool_), _binary("greater_equal", dtype=bool_)
logical_and, logical_or = _binary("logical_and", dtype=bool_), _binary("logical_or", dtype=bool_)
logical_xor = _binary("logical_xor", dtype=bool_)
bitwise_and, bitwise_or, bitwise_xor = (
    _bitwise(f"bitwise_{n}", n, partial(_no_float, f"bitwise_{n}")) for n in ("and", "or", "xor")
)
left_shift = bitwise_left_shift = _bitwise("left_shift", "shl", partial(_shifted, "left_shift"))
right_shift = bitwise_right_shift = _bitwise("right_shift", "shr", partial(_shifted, "right_shift"))

# ---- the rest

_INVERT = elementwise_op("bitwise_invert", np.invert, functions.invert)
_WHERE = Op(
    "where",
    lambda c, x, y: (broadcast(c[0], x[0], y[0]), x[1]),
    without_gaps(np.where),
    kernel_or_chain(functions.where),
    row_wise=True,
    steps=functions.where,
)
_ROUND = Op("round", lambda x, *, decimals: x, upcasting(special.round))


def power(a: Any, b: Any) -> array:
    """a to the power b; a square or a cube is a product."""
    if type(b) in (int, float) and b in (2, 3) and as_array(a).dtype != bool_:
        a = inputs(same_dtype, (a, b))[0]
        return square(a) if b == 2 else multiply(square(a), a)
    return _power(a, b)


pow = power


def bitwise_invert(x: Any) -> array:
    """~x; of bools, `logical_not`."""
    x = as_array(x)
    return record(_INVERT, astype(x, _no_float("bitwise_invert", x.dtype)))


def where(condition: Any, x: Any, y: Any) -> array:
    """`numpy.where`."""
    return record(_WHERE, astype(condition, bool_), *promote((x, y)))


def clip(x: Any, /, a_min: Any, a_max: Any) -> array:
    """x, but at least `a_min` and at most `a_max`; None, for one of them, is no limit."""
    if a_min is None and a_max is None:
        raise ValueError("[clip] a_min and a_max are None: give one")
    x = as_array(x) if a_min is None else maximum(x, a_min)
    return x if a_max is None else minimum(x, a_max)


def round(x: Any, decimals: int = 0) -> array:
    """To so many decimals, halves to the even neighbour; ints stay ints."""
    return record(_ROUND, x, decimals=whole_number("round", "decimals", decimals))


def divmod(a: Any, b: Any) -> list[array]:
    """[floor_divide(a, b), remainder(a, b)]."""
    return [floor_divide(a, b), remainder(a, b)]


def nan_to_num(
    x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> array:
    """Numbers in place of NaN and infinities; by default the largest there are."""
    x = as_array(x)
    if x.dtype.kind not in "fV":
        return x
    largest = special.largest(x.dtype)
    x = where(isnan(x), nan, x)
    x = where(isposinf(x), largest if posinf is None else posinf, x)
    return where(isneginf(x), -largest if neginf is None else neginf, x)


def isclose(
    x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, *, equal_nan: bool = False
) -> array:
    """|x - y| <= atol + rtol * |y|; infinities are close to themselves."""
    x, y = inputs(floating, (x, y))
    near = less_equal(abs(subtract(x, y)), add(atol, multiply(rtol, abs(y))))
    close = where(logical_or(isinf(x), isinf(y)), equal(x, y), near)
    return logical_or(close, logical_and(isnan(x), isnan(y))) if equal_nan else close


def positive(x: Any) -> array:
    """x."""
    return array(as_array(x).node)


def stop_gradient(x: Any) -> array:
    """x: there are no gradients here."""
    return as_array(x)
