"""Elementwise functions as steps of a chain: what `exp` is on every device, to the bit.

A `Value` is a number yet to be computed; its operators append steps to a chain. The polynomials are
least-squares fits on Chebyshev nodes, of degrees that leave an error below one unit in the last
place of a float32; tests hold every function to double precision.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from nanocupy.device.chain import HALVES, Chain, Step

Number = bool | int | float


class Unfit(Exception):
    """These kinds have no steps: the operation stays apart from chains."""


class Build:
    """A chain in the making; equal steps are made once."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.inputs = tuple(inputs)
        self.steps: list[Step] = []
        self._known: dict[Any, Value] = {}

    def load(self, index: int) -> Value:
        kind = self.inputs[index]
        return Value(self, index, "f32" if kind in HALVES else kind)

    def step(self, op: str, kind: str, *args: Any) -> Value:
        step = Step(op, kind, args)
        key = op, kind, str(args)  # 0.0 and -0.0 are equal, and not the same
        if key not in self._known:
            number = len(self.inputs) + len(self.steps)
            self.steps.append(step)
            self._known[key] = Value(self, number, kind)
        return self._known[key]

    def chain(self, outputs: Sequence[tuple[Value, str]]) -> Chain:
        return Chain(self.inputs, tuple(self.steps), tuple((v.number, k) for v, k in outputs))


class Value:
    """One value of a chain; Python numbers take its kind."""

    def __init__(self, build: Build, number: int, kind: str) -> None:
        self.build, self.number, self.kind = build, number, kind

    def like(self, x: Value | Number) -> Value:
        if isinstance(x, Value):
            return x
        number: Any = x
        if self.kind == "f32":
            number = struct.unpack("f", struct.pack("f", number))[0]
        return self.build.step("const", self.kind, float(number) if self.is_float else int(number))

    @property
    def is_float(self) -> bool:
        return self.kind in ("f32", "f64")

    @property
    def signed(self) -> bool:
        return self.kind[0] == "i"

    def make(self, op: str, *others: Value | Number, kind: str = "") -> Value:
        numbers = [self.like(x).number for x in others]
        return self.build.step(op, kind or self.kind, self.number, *numbers)

    def __add__(self, y: Any) -> Value:
        return self.make("add", y)

    def __sub__(self, y: Any) -> Value:
        return self.make("sub", y)

    def __rsub__(self, y: Any) -> Value:
        return self.like(y) - self

    def __mul__(self, y: Any) -> Value:
        return self.make("mul", y)

    def __truediv__(self, y: Any) -> Value:
        return self.make("div", y)

    def __rtruediv__(self, y: Any) -> Value:
        return self.like(y) / self

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Value:
        return self.make("neg")

    def __and__(self, y: Any) -> Value:
        return self.make("and", y)

    def __or__(self, y: Any) -> Value:
        return self.make("or", y)

    def __xor__(self, y: Any) -> Value:
        return self.make("xor", y)

    def __invert__(self) -> Value:
        return self.make("not")

    def __lt__(self, y: Any) -> Value:
        return self.make("lt", y, kind="bool")

    def __le__(self, y: Any) -> Value:
        return self.make("le", y, kind="bool")

    def __gt__(self, y: Any) -> Value:
        return self.make("gt", y, kind="bool")

    def __ge__(self, y: Any) -> Value:
        return self.make("ge", y, kind="bool")

    def equal(self, y: Any) -> Value:
        return self.make("eq", y, kind="bool")

    def unequal(self, y: Any) -> Value:
        return self.make("ne", y, kind="bool")

    def pick(self, x: Value, y: Value | Number) -> Value:
        """x where this bool is true, else y."""
        return self.build.step("select", x.kind, self.number, x.number, x.like(y).number)

    def cast(self, kind: str) -> Value:
        """In another kind; "f16" and "bf16" round an f32. Floats become no ints here: what comes
        of a float that no int is close to depends on the machine."""
        if kind == self.kind:
            return self
        if kind in HALVES:
            if self.kind == "f64":
                raise Unfit
            return self.cast("f32").make(kind)
        if kind == "bool":
            return self.unequal(0)
        if self.is_float and kind not in ("f32", "f64"):
            raise Unfit
        return self.make("cast", kind=kind)

    def fma(self, y: Value | Number, z: Value | Number) -> Value:
        """self * y + z, rounded once."""
        return self.make("fma", y, z)

    def abs(self) -> Value:
        if self.is_float:
            return self.make("abs")
        return (self < 0).pick(-self, self) if self.signed else self

    def f32(self) -> Value:
        """This value. Raises Unfit if it is no f32."""
        if self.kind != "f32":
            raise Unfit
        return self


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """By Horner's rule, the highest power first."""
    p: Value | float = coefficients[0]
    for c in coefficients[1:]:
        p = x.fma(p, c)
    assert isinstance(p, Value)
    return p


# ---- exponentials and logarithms of f32

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # ln 2 in two: products with the first are exact
_EXP = (  # (e**r - 1 - r) / r**2: Cephes' expf
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5,
)  # fmt: skip
_LOG = (  # (ln(1 + f) - f + f**2 / 2) / f**3
    0.07149753719568253, -0.115712009370327, 0.11661511659622192, -0.12411050498485565,
    0.14249935746192932, -0.1666848063468933, 0.20000708103179932, -0.24999989569187164,
    0.3333333134651184,
)  # fmt: skip
_TANH = (  # (tanh(x) - x) / x**3, of x**2
    0.0022958347108215094, -0.008346972987055779, 0.02176995761692524, -0.05395940691232681,
    0.13333304226398468, -0.3333333432674408,
)  # fmt: skip
_ERF_NEAR = (  # erf(x) / x - 1, of x**2
    1.0595268804536317e-06, -1.3911698260926642e-05, 0.00011956946400459856,
    -0.0008542670402675867, 0.005223785061389208, -0.026866134256124496, 0.11283791065216064,
    -0.37612637877464294, 0.12837916612625122,
)  # fmt: skip
_ERF_FAR = (  # ln(1 - erf(x))
    1.6140616025950294e-06, -4.559062290354632e-05, 0.0005927695310674608,
    -0.004740222357213497, 0.02636471763253212, -0.10997824370861053, -0.6319370865821838,
    -1.1301666498184204, 0.00030321296071633697,
)  # fmt: skip


_SHIFT = 12582912.0  # 1.5 * 2**23: what is added to it is rounded, in its low bits
_SHIFT_BITS = 0x4B400000


def _reduced(x: Value) -> tuple[Value, Value]:
    """(p, n) with e**x = p * 2**n, n as an i32."""
    shifted = x.fma(_LOG2E, _SHIFT)
    n = shifted - _SHIFT
    r = n.fma(-_LN2_LOW, n.fma(-_LN2_HIGH, x))
    square = r * r
    high, middle, low = (r.fma(*_EXP[i : i + 2]) for i in (0, 2, 4))
    p = square.fma(square.fma(square.fma(high, middle), low), r) + 1.0
    return p, shifted.make("bits", kind="i32") - _SHIFT_BITS


def exp(x: Value) -> Value:
    """2**n * e**r, the power in two factors: so subnormal results and infinity come out right."""
    x = x.f32()
    y = (x < -105.0).pick(x.like(-105.0), x)
    p, n = _reduced((y > 90.0).pick(x.like(90.0), y))
    half = n.make("shr", 1)
    return p * _power_of_two(half) * _power_of_two(n - half)


def exp_negative(x: Value) -> Value:
    """The same for x <= 0, below -87 zero: as `simd.emit_exp_negative`, to the bit."""
    p, n = _reduced(x.f32())
    return (x < -87.0).pick(x.like(0.0), p * _power_of_two(n))


def _power_of_two(n: Value) -> Value:
    return (n.make("shl", 23) + (127 << 23)).make("float", kind="f32")


def log(x: Value) -> Value:
    """ln(m) + n * ln 2 with m from sqrt(1/2) to sqrt(2)."""
    x = x.f32()
    small = x < 1.1754943508222875e-38
    y = small.pick(x * 8388608.0, x)
    bits = y.make("bits", kind="i32")
    n = (bits - 0x3F3504F3).make("shr", 23)
    f = (bits - n.make("shl", 23)).make("float", kind="f32") - 1.0
    s = f * f
    p = polynomial(f, _LOG) * f * s
    e = n.cast("f32") + small.pick(x.like(-23.0), 0.0)
    low = s.fma(-0.5, e.fma(_LN2_LOW, p))
    value = e.fma(_LN2_HIGH, f + low)
    value = (x < float("inf")).pick(value, x)  # infinity and NaN are themselves
    value = x.equal(0.0).pick(x.like(-float("inf")), value)
    return (x < 0.0).pick(x.like(float("nan")), value)


def log2(x: Value) -> Value:
    return log(x) * _LOG2E


def log10(x: Value) -> Value:
    return log(x) * 0.4342944819032518


def log1p(x: Value) -> Value:
    """ln(u) * x / (u - 1), u = 1 + x: what rounding took from u cancels."""
    u = x.f32() + 1.0
    value = log(u) * (x / (u - 1.0))
    value = (u < float("inf")).pick(value, u)
    return u.equal(1.0).pick(x, value)


def expm1(x: Value) -> Value:
    """(u - 1) * x / ln(u), u = e**x, likewise; far from zero u - 1."""
    u = exp(x)
    less = u - 1.0
    value = (x.abs() < 1.0).pick(less * (x / log(u)), less)
    return u.equal(1.0).pick(x, value)


def logaddexp(x: Value, y: Value) -> Value:
    """The larger plus log1p(e**-|x - y|)."""
    x = x.f32()
    apart = exp_negative(-(x - y).abs())
    value = (x > y).pick(x, y) + log1p(apart)
    value = x.equal(y).pick(x + 0.6931471805599453, value)
    return x.equal(x).pick(y.equal(y).pick(value, y), x)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e) or e / (1 + e) with e = e**-|x|, so that nothing overflows."""
    e = exp_negative(-x.f32().abs())
    return (x < 0.0).pick(e, 1.0) / (e + 1.0)


def silu(x: Value) -> Value:
    """x * sigmoid(x)."""
    e = exp_negative(-x.f32().abs())
    return (x < 0.0).pick(x * e, x) / (e + 1.0)


def gelu(x: Value) -> Value:
    """x * sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 x**3): the tanh formula."""
    twice = 1.5957691216057308 * (x.f32() + x * 0.044715 * x * x)
    e = exp_negative(-twice.abs())
    return (x < 0.0).pick(x * e, x) / (e + 1.0)


def tanh(x: Value) -> Value:
    """A polynomial near zero, else (1 - e) / (1 + e), e = e**-2|x|, with the sign of x."""
    size = x.f32().abs()
    s = x * x
    near = (x * s).fma(polynomial(s, _TANH), x)
    e = exp_negative(size * -2.0)
    far = (1.0 - e) / (e + 1.0)
    return (size < 0.625).pick(near, (x < 0.0).pick(-far, far))


def erf(x: Value) -> Value:
    """A polynomial near zero, else 1 - e**q with the sign of x."""
    size = x.f32().abs()
    s = x * x
    near = x.fma(polynomial(s, _ERF_NEAR), x)
    inside = (size > 4.0).pick(x.like(4.0), size)
    far = 1.0 - exp_negative(polynomial(inside, _ERF_FAR))
    return (size < 1.0).pick(near, (x < 0.0).pick(-far, far))


# ---- what is exact, or rounded once


def unchanged(x: Value) -> Value:
    return x


def square(x: Value) -> Value:
    return x * x


def sign(x: Value) -> Value:
    """1, 0 or -1; 0 for NaN, too."""
    return (x > 0).cast("i8") - (x < 0).cast("i8")


def sqrt(x: Value) -> Value:
    return x.make("sqrt")


def rsqrt(x: Value) -> Value:
    return 1.0 / sqrt(x)


def reciprocal(x: Value) -> Value:
    return 1.0 / x


def negative(x: Value) -> Value:
    return -x


def absolute(x: Value) -> Value:
    return x.abs()


def add(x: Value, y: Value) -> Value:
    return x + y


def subtract(x: Value, y: Value) -> Value:
    return x - y


def multiply(x: Value, y: Value) -> Value:
    return x * y


def divide(x: Value, y: Value) -> Value:
    return x / y


def maximum(x: Value, y: Value) -> Value:
    """NaN where either is."""
    larger = (x > y).pick(x, y)
    return x.equal(x).pick(larger, x) if x.is_float else larger


def minimum(x: Value, y: Value) -> Value:
    smaller = (x < y).pick(x, y)
    return x.equal(x).pick(smaller, x) if x.is_float else smaller


def rounding(op: str) -> Callable[[Value], Value]:
    """floor, ceil, trunc or rint; ints are whole already."""
    return lambda x: x.make(op) if x.is_float else x


def floor_divide(x: Value, y: Value) -> Value:
    if not x.is_float:
        raise Unfit  # division by zero
    return (x / y).make("floor")


def comparison(op: str) -> Callable[[Value, Value], Value]:
    return lambda x, y: x.make(op, y, kind="bool")


def logical(op: str) -> Callable[[Value, Value], Value]:
    return lambda x, y: x.cast("bool").make(op, y.cast("bool"))


def bitwise(op: str) -> Callable[[Value, Value], Value]:
    return lambda x, y: x.make(op, y)


def logical_not(x: Value) -> Value:
    return x.equal(0)


def invert(x: Value) -> Value:
    return ~x


def isnan(x: Value) -> Value:
    return x.unequal(x)


def isinf(x: Value) -> Value:
    return x.abs().equal(float("inf")) if x.is_float else x.unequal(x)


def isfinite(x: Value) -> Value:
    return x.abs() < float("inf") if x.is_float else x.equal(x)


def isposinf(x: Value) -> Value:
    return x.equal(float("inf")) if x.is_float else x.unequal(x)


def isneginf(x: Value) -> Value:
    return x.equal(-float("inf")) if x.is_float else x.unequal(x)


def where(condition: Value, x: Value, y: Value) -> Value:
    return condition.pick(x, y)
