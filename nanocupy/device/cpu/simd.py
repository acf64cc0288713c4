"""SIMD vectors as Numba values: the dialect CPU kernels are written in.

`F` is sixteen float32, `I` sixteen int32, on every machine: LLVM lowers them to one AVX-512
register, two AVX2 registers or four NEON ones. Only two things look at the target: the 16-bit dot
product (x86 has an instruction for it) and half-precision conversion (F16C). Both have a portable
sequence with the same result to the bit.

Addresses are plain int64. Nothing here reassociates: `vsum` adds in a fixed tree, `vfma` rounds
once, and no fast-math flag is ever set, so a kernel's result does not depend on who compiled it.

An `emit_*` function writes LLVM IR; the name without the prefix is the same thing as a Numba
function. Generated kernels (linear tiles) use the former, hand-written kernels the latter.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from nanocupy.device.cpu import target
from nanocupy.device.cpu.llvm_ir import (
    LANES as LANES,
)
from nanocupy.device.cpu.llvm_ir import (
    VF as VF,
)
from nanocupy.device.cpu.llvm_ir import (
    VH as VH,
)
from nanocupy.device.cpu.llvm_ir import (
    VI as VI,
)
from nanocupy.device.cpu.llvm_ir import (
    Bfloat as Bfloat,
)
from nanocupy.device.cpu.llvm_ir import (
    call as call,
)
from nanocupy.device.cpu.llvm_ir import (
    const as const,
)
from nanocupy.device.cpu.llvm_ir import (
    emit_bf16_to_f32 as emit_bf16_to_f32,
)
from nanocupy.device.cpu.llvm_ir import (
    emit_f16_to_f32 as emit_f16_to_f32,
)
from nanocupy.device.cpu.llvm_ir import (
    emit_f32_to_bf16 as emit_f32_to_bf16,
)
from nanocupy.device.cpu.llvm_ir import (
    emit_f32_to_f16 as emit_f32_to_f16,
)
from nanocupy.device.cpu.llvm_ir import (
    f32 as f32,
)
from nanocupy.device.cpu.llvm_ir import (
    i8 as i8,
)
from nanocupy.device.cpu.llvm_ir import (
    i16 as i16,
)
from nanocupy.device.cpu.llvm_ir import (
    i32 as i32,
)
from nanocupy.device.cpu.llvm_ir import (
    i64 as i64,
)
from nanocupy.device.cpu.llvm_ir import (
    k as k,
)
from nanocupy.device.cpu.llvm_ir import (
    pointer as pointer,
)
from nanocupy.device.cpu.llvm_ir import (
    splat as splat,
)


class Vec(types.Type):
    """Sixteen lanes of one LLVM type, as a Numba value."""

    def __init__(self, name: str, lanes: ir.VectorType) -> None:
        self.lanes = lanes
        super().__init__(name=name)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vec) -> None:
        super().__init__(dmm, fe_type, fe_type.lanes)


F = Vec("f32x16", VF)
I = Vec("i32x16", VI)  # noqa: E741  (I is the natural partner of F)
A = types.int64  # an address
f4, i4, i8t, void = types.float32, types.int32, types.int64, types.void

Emit = Callable[..., Any]
# Decorator for helpers that kernels call. Nobody calls one from Python, so it needs no wrappers.
fn = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


def op(result: types.Type, *args: types.Type) -> Callable[[Emit], Any]:
    """Make `emit(builder, *values)` an intrinsic with the fixed signature `result(*args)`."""

    def decorate(emit: Emit) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            out = emit(builder, *values)
            return context.get_dummy_value() if result is void else out

        def define(typing_context: Any, *_: Any) -> Any:
            return result(*args), codegen

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = ["typing_context", *(f"a{n}" for n in range(len(args)))]
        define.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, kind) for name in names]
        )
        define.__name__ = emit.__name__.removeprefix("emit_")
        define.__doc__ = emit.__doc__
        return intrinsic(define)

    return decorate


# ---- memory


def _load(b: Any, address: Any, ty: Any, align: int) -> Any:
    return b.load(pointer(b, address, ty), align=align)


@op(F, A)
def vload(b: Any, p: Any) -> Any:
    """Sixteen f32 at p."""
    return _load(b, p, VF, 4)


@op(void, A, F)
def vstore(b: Any, p: Any, v: Any) -> Any:
    b.store(v, pointer(b, p, VF), align=4)


@op(I, A)
def iload(b: Any, p: Any) -> Any:
    """Sixteen i32 (or 64 bytes) at p."""
    return _load(b, p, VI, 4)


@op(void, A, I)
def istore(b: Any, p: Any, v: Any) -> Any:
    b.store(v, pointer(b, p, VI), align=4)


@op(void, A, I)
def istore_i8(b: Any, p: Any, v: Any) -> Any:
    """Sixteen i32 as sixteen bytes at p (truncated)."""
    lanes = ir.VectorType(i8, LANES)
    b.store(b.trunc(v, lanes), pointer(b, p, lanes), align=1)


@op(void, A, I)
def istore_i16_pairs(b: Any, p: Any, v: Any) -> Any:
    """Sixteen i32 as i16 at p (truncated), of every four the second and the third exchanged."""
    order = [n + i for n in range(0, LANES, 4) for i in (0, 2, 1, 3)]
    b.store(b.trunc(pick(b, v, order), VH), pointer(b, p, VH), align=2)


@op(F, f4)
def vsplat(b: Any, x: Any) -> Any:
    return splat(b, x)


@op(I, i4)
def isplat(b: Any, x: Any) -> Any:
    return splat(b, x)


# ---- bfloat16 and float16


@op(void, A, F)
def vstore_bf16(b: Any, p: Any, v: Any) -> Any:
    b.store(emit_f32_to_bf16(b, v), pointer(b, p, VH), align=2)


@op(void, A, F)
def vstore_f16(b: Any, p: Any, v: Any) -> Any:
    b.store(emit_f32_to_f16(b, v), pointer(b, p, VH), align=2)


def _first_lane(b: Any, v: Any) -> Any:
    return b.extract_element(v, ir.Constant(i32, 0))


@op(f4, types.int16)
def bf16_to_f32(b: Any, half: Any) -> Any:
    return _first_lane(b, emit_bf16_to_f32(b, splat(b, half)))


@op(f4, types.int16)
def f16_to_f32(b: Any, half: Any) -> Any:
    return _first_lane(b, emit_f16_to_f32(b, splat(b, half)))


# ---- arithmetic


def emit_fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x*y + z, rounded once."""
    return call(b, "llvm.fma.v16f32", VF, x, y, z)


def emit_dot_i16(b: Any, acc: Any, x: Any, y: Any) -> Any:
    """acc[lane] += x.low * y.low + x.high * y.high, a lane being two signed 16-bit numbers. Exact
    where nothing leaves 32 bits."""
    has = target.features()
    if "avx512vnni" in has:
        return call(b, "llvm.x86.avx512.vpdpwssd.512", VI, acc, x, y)
    if "avx512bw" in has:
        halves = ir.VectorType(i16, 2 * LANES)
        values = (b.bitcast(x, halves), b.bitcast(y, halves))
        return b.add(acc, call(b, "llvm.x86.avx512.pmaddw.d.512", VI, *values))
    if "avx2" in has:
        return _fence(b, b.add(acc, _in_halves(b, _pmaddwd, x, y)))
    high = b.mul(b.ashr(x, const(VI, 16)), b.ashr(y, const(VI, 16)))
    low = [b.ashr(b.shl(v, const(VI, 16)), const(VI, 16)) for v in (x, y)]
    return b.add(b.add(acc, high), b.mul(*low))


def emit_dot_bf16(b: Any, acc: Any, x: Any, y: Any) -> Any:
    """acc[lane] += x.high * y.high + x.low * y.low, a lane being two bf16, as AVX512_BF16 rounds:
    each product added once rounded, numbers below the normal ones being zeros."""
    pairs = ir.VectorType(Bfloat(), 2 * LANES)
    values = (b.bitcast(x, pairs), b.bitcast(y, pairs))
    return call(b, "llvm.x86.avx512bf16.dpbf16ps.512", VF, acc, *values)


def emit_dot_u8s8(b: Any, acc: Any, u: Any, s: Any) -> Any:
    """acc += u8(u) * s8(s), byte by byte: at most 8 times from zero, then `emit_widen`.

    With VNNI acc is 32 bits of four bytes each, any codes; without it 16 bits of two bytes each,
    exact for codes of 4 bits and |s| <= 127 (8 * 2 * 15 * 127 < 2**15).
    """
    if "avx512vnni" in target.features():
        return call(b, "llvm.x86.avx512.vpdpbusd.512", VI, acc, u, s)
    return _fence(b, _in_halves(b, _add_pmaddubsw, acc, u, s))


def emit_widen(b: Any, acc: Any) -> Any:
    """What `emit_dot_u8s8` added up, as 32 bits a lane."""
    if "avx512vnni" in target.features():
        return acc
    return emit_dot_i16(b, const(VI, 0), acc, const(VI, 0x00010001))


def _add_pmaddubsw(b: Any, acc: Any, u: Any, s: Any) -> Any:
    halves, codes = ir.VectorType(i16, LANES), ir.VectorType(i8, 2 * LANES)
    dots = call(b, "llvm.x86.avx2.pmadd.ub.sw", halves, b.bitcast(u, codes), b.bitcast(s, codes))
    return b.bitcast(b.add(b.bitcast(acc, halves), dots), acc.type)


def _fence(b: Any, x: Any) -> Any:
    """x, out of reach of LLVM's reassociation, which would need more registers than there are."""
    return b.bitcast(call(b, "llvm.arithmetic.fence.v16f32", VF, b.bitcast(x, VF)), VI)


def _pmaddwd(b: Any, x: Any, y: Any) -> Any:
    """Eight lanes of `emit_dot_i16` without the addition."""
    halves = ir.VectorType(i16, LANES)
    return call(b, "llvm.x86.avx2.pmadd.wd", x.type, b.bitcast(x, halves), b.bitcast(y, halves))


def _in_halves(b: Any, emit: Emit, *values: Any) -> Any:
    """emit() on the first and on the last eight lanes, side by side."""
    half = list(range(LANES // 2))
    low = emit(b, *(pick(b, v, half) for v in values))
    high = emit(b, *(pick(b, v, [n + LANES // 2 for n in half]) for v in values))
    both = ir.Constant(ir.VectorType(i32, LANES), list(range(LANES)))
    return b.shuffle_vector(low, high, both)


def emit_exp(b: Any, x: Any) -> Any:
    """e**x to about 2 ulp: 2**n * p(r), as in Cephes' expf. Below -87 gives 0; NaN stays NaN."""
    low = b.fcmp_ordered("<", x, const(VF, -87.0))
    y = b.select(low, const(VF, -87.0), x)
    y = b.select(b.fcmp_ordered(">", y, const(VF, 88.0)), const(VF, 88.0), y)
    n = call(b, "llvm.rint.v16f32", VF, b.fmul(y, const(VF, 1.4426950408889634)))
    r = emit_fma(b, n, const(VF, -0.693359375), y)
    r = emit_fma(b, n, const(VF, 2.12194440e-4), r)
    p = const(VF, 1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5):
        p = emit_fma(b, p, r, const(VF, c))
    p = b.fadd(emit_fma(b, b.fmul(p, r), r, r), const(VF, 1.0))
    n = b.select(b.fcmp_unordered("uno", x, x), const(VF, 0.0), n)
    power = b.shl(b.add(b.fptosi(n, VI), const(VI, 127)), const(VI, 23))
    return b.select(low, const(VF, 0.0), b.fmul(p, b.bitcast(power, VF)))


vfma = op(F, F, F, F)(emit_fma)
vexp = op(F, F)(emit_exp)


@op(F, F)
def vneg(b: Any, x: Any) -> Any:
    return b.fneg(x)


@op(F, F)
def vabs(b: Any, x: Any) -> Any:
    return b.bitcast(b.and_(b.bitcast(x, VI), const(VI, 0x7FFFFFFF)), VF)


@op(F, F, F)
def vmax(b: Any, x: Any, y: Any) -> Any:
    """Lane by lane; y where either is NaN."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


@op(F, F, F, F)
def vpick(b: Any, x: Any, negative: Any, other: Any) -> Any:
    """Lane by lane: `negative` where x < 0, else `other`."""
    return b.select(b.fcmp_ordered("<", x, const(VF, 0.0)), negative, other)


@op(I, I, I)
def iadd(b: Any, x: Any, y: Any) -> Any:
    return b.add(x, y)


@op(I, I, I)
def iand(b: Any, x: Any, y: Any) -> Any:
    return b.and_(x, y)


@op(I, I, I)
def isub(b: Any, x: Any, y: Any) -> Any:
    return b.sub(x, y)


@op(I, I, I)
def imax(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed(">", x, y), x, y)


@op(I, I, i4)
def isar(b: Any, x: Any, bits: Any) -> Any:
    """Shift right, keeping the sign."""
    return b.ashr(x, splat(b, bits))


@op(F, I)
def to_float(b: Any, x: Any) -> Any:
    return b.sitofp(x, VF)


@op(I, F)
def to_int(b: Any, x: Any) -> Any:
    """To the nearest integer, ties to even."""
    return b.fptosi(call(b, "llvm.rint.v16f32", VF, x), VI)


@op(F, i4, F, F)
def vfirst(b: Any, n: Any, x: Any, y: Any) -> Any:
    """x in the first n lanes, y in the others."""
    lane = ir.Constant(VI, list(range(LANES)))
    return b.select(b.icmp_signed("<", lane, splat(b, n)), x, y)


def _halve(b: Any, v: Any, combine: Emit) -> Any:
    """Fold 16 lanes to one in a fixed tree: lane i with lane i + half."""
    width = LANES
    while width > 1:
        width //= 2
        undefined = ir.Constant(v.type, ir.Undefined)
        pick = ir.VectorType(i32, width)
        low = b.shuffle_vector(v, undefined, ir.Constant(pick, list(range(width))))
        high = b.shuffle_vector(v, undefined, ir.Constant(pick, list(range(width, 2 * width))))
        v = combine(low, high)
    return _first_lane(b, v)


@op(f4, F)
def vsum(b: Any, x: Any) -> Any:
    """Sum of the lanes, in the tree ((0+8)+(4+12))+... that the references follow too."""
    return _halve(b, x, b.fadd)


@op(f4, F)
def vmaxval(b: Any, x: Any) -> Any:
    return _halve(b, x, lambda p, q: b.select(b.fcmp_ordered(">", p, q), p, q))


@op(i4, I)
def imaxval(b: Any, x: Any) -> Any:
    return _halve(b, x, lambda p, q: b.select(b.icmp_signed(">", p, q), p, q))


@op(f4, i4)
def from_bits(b: Any, bits: Any) -> Any:
    """The f32 that has these bits."""
    return b.bitcast(bits, f32)


@op(i4, I)
def isum(b: Any, x: Any) -> Any:
    return _halve(b, x, b.add)


@infer_global(operator.add)
@infer_global(operator.sub)
@infer_global(operator.mul)
@infer_global(operator.truediv)
class _Operators(ConcreteTemplate):
    """`x + y`, `x - y`, `x * y`, `x / y` on F, so that kernels read as arithmetic."""

    cases = [F(F, F)]  # noqa: RUF012  (Numba reads it off the class)


def _lower(python_operator: Any, emit: str) -> None:
    @lower_builtin(python_operator, F, F)
    def _(context: Any, b: Any, signature: Any, values: Any) -> Any:
        return getattr(b, emit)(*values)


for _python, _emit in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _lower(getattr(operator, _python), _emit)


# ---- control flow for generated kernels


def emit_loop(
    b: Any, count: Any, values: list[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """`for i in range(count): values = body(i, values)` with count >= 1; the final values."""
    entry = b.block
    head, done = b.append_basic_block("loop"), b.append_basic_block("done")
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(i64)
    index.add_incoming(k(0), entry)
    carried = [b.phi(v.type) for v in values]
    for phi, v in zip(carried, values, strict=True):
        phi.add_incoming(v, entry)
    new = body(index, list(carried))
    following = b.add(index, k(1))
    index.add_incoming(following, b.block)
    for phi, v in zip(carried, new, strict=True):
        phi.add_incoming(v, b.block)
    b.cbranch(b.icmp_signed("<", following, count), head, done)
    b.position_at_end(done)
    return new


# ---- the end of a row that is not a multiple of sixteen


def _first_lanes(b: Any, n: Any) -> Any:
    return b.icmp_signed("<", ir.Constant(VI, list(range(LANES))), splat(b, n))


@op(F, A, i4)
def vload_first(b: Any, p: Any, n: Any) -> Any:
    """The first n f32 at p, then zeros. Touches no memory past them."""
    args = (pointer(b, p, VF), ir.Constant(i32, 4), _first_lanes(b, n), const(VF, 0.0))
    return call(b, "llvm.masked.load.v16f32.p0", VF, *args)


@op(void, A, i4, F)
def vstore_first(b: Any, p: Any, n: Any, v: Any) -> Any:
    """The first n lanes to p. Touches no memory past them."""
    args = (v, pointer(b, p, VF), ir.Constant(i32, 4), _first_lanes(b, n))
    call(b, "llvm.masked.store.v16f32.p0", ir.VoidType(), *args)


@op(void, A, i4, F)
def vstore_bf16_first(b: Any, p: Any, n: Any, v: Any) -> Any:
    """The first n lanes as bf16 to p. Touches no memory past them."""
    lanes, half = _first_lanes(b, n), emit_f32_to_bf16(b, v)
    args = (half, pointer(b, p, VH), ir.Constant(i32, 2), lanes)
    call(b, "llvm.masked.store.v16i16.p0", ir.VoidType(), *args)


# ---- exp for softmax ---------------------------------------------------------------------------


def emit_exp_negative(b: Any, x: Any) -> Any:
    """e**x for x <= 0, to about 2 ulp, in vectors of any length. Below -87 gives 0; NaN stays NaN.

    Half the work of `emit_exp`: n comes from adding 1.5 * 2**23, and the terms pair up.
    """
    kind, words = x.type, ir.VectorType(i32, x.type.count)

    def fma(u: Any, v: Any, w: Any) -> Any:
        return call(b, f"llvm.fma.v{kind.count}f32", kind, u, v, w)

    def number(value: float) -> Any:
        return const(kind, value)

    shifted = fma(x, number(1.4426950408889634), number(12582912.0))
    n = b.fsub(shifted, number(12582912.0))
    r = fma(n, number(2.12194440e-4), fma(n, number(-0.693359375), x))
    square = b.fmul(r, r)
    high = fma(r, number(1.9875691500e-4), number(1.3981999507e-3))
    middle = fma(r, number(8.3334519073e-3), number(4.1665795894e-2))
    low = fma(r, number(1.6666665459e-1), number(0.5))
    p = fma(fma(high, square, middle), square, low)
    p = b.fadd(fma(p, square, r), number(1.0))
    power = b.add(b.shl(b.bitcast(shifted, words), const(words, 23)), const(words, 127 << 23))
    tiny = b.fcmp_ordered("<", x, number(-87.0))
    return b.select(tiny, number(0.0), b.fmul(p, b.bitcast(power, kind)))


vexp_negative = op(F, F)(emit_exp_negative)


def vector(element: Any, count: int) -> ir.VectorType:
    """The type of `count` elements, for emitters that work on several F at once."""
    return ir.VectorType(element, count)


def pick(b: Any, v: Any, lanes: list[int]) -> Any:
    """A vector of the lanes of v with these numbers."""
    mask = ir.Constant(ir.VectorType(i32, len(lanes)), lanes)
    return b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), mask)


# ---- prefetch ---------------------------------------------------------------------------------


def emit_prefetch(b: Any, address: Any) -> None:
    """Ask for the cache line at an address, which need not exist."""
    hints = (ir.Constant(i32, 0), ir.Constant(i32, 3), ir.Constant(i32, 1))  # read, keep, data
    call(b, "llvm.prefetch.p0", ir.VoidType(), pointer(b, address, i8), *hints)
