"""LLVM IR in vectors of sixteen lanes, as kernels and chains both emit it. No Numba."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from nanocupy.device.cpu import target

LANES = 16

i1, i8, i16, i32, i64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
f32 = ir.FloatType()
VF, VI, VH = (ir.VectorType(t, LANES) for t in (f32, i32, i16))


class Bfloat(ir.HalfType):
    """LLVM's bfloat, which llvmlite does not have."""

    def __str__(self) -> str:
        return "bfloat"


def pointer(b: Any, address: Any, ty: Any) -> Any:
    return b.inttoptr(address, ty.as_pointer())


def splat(b: Any, value: Any) -> Any:
    """The scalar in all lanes."""
    vector = ir.VectorType(value.type, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    one = b.insert_element(undefined, value, ir.Constant(i32, 0))
    return b.shuffle_vector(one, undefined, ir.Constant(VI, [0] * LANES))


def k(value: int) -> Any:
    """A constant 64-bit integer: an offset, a count."""
    return ir.Constant(i64, value)


def const(vector: ir.VectorType, value: float) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def call(b: Any, name: str, result: Any, *values: Any) -> Any:
    """Call an LLVM intrinsic or external function by name."""
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [v.type for v in values]), name)
    return b.call(function, list(values))


def emit_bf16_to_f32(b: Any, half: Any) -> Any:
    """<16 x i16> of bf16 bits -> f32, exact."""
    return b.bitcast(b.shl(b.zext(half, VI), const(VI, 16)), VF)


def emit_f32_to_bf16(b: Any, x: Any) -> Any:
    """f32 -> bf16 bits, to nearest even; a NaN stays a NaN."""
    u = b.bitcast(x, VI)
    odd = b.and_(b.lshr(u, const(VI, 16)), const(VI, 1))
    rounded = b.lshr(b.add(u, b.add(odd, const(VI, 0x7FFF))), const(VI, 16))
    quiet = b.or_(b.lshr(u, const(VI, 16)), const(VI, 0x40))
    return b.trunc(b.select(b.fcmp_unordered("uno", x, x), quiet, rounded), VH)


def _converts_f16() -> bool:
    return "f16c" in target.features() or target.is_arm64()


def emit_f16_to_f32(b: Any, half: Any) -> Any:
    """<16 x i16> of f16 bits -> f32, exact (subnormals and infinities too)."""
    if _converts_f16():
        return b.fpext(b.bitcast(half, ir.VectorType(ir.HalfType(), LANES)), VF)
    wide = b.zext(half, VI)
    magnitude = b.shl(b.and_(wide, const(VI, 0x7FFF)), const(VI, 13))
    scaled = b.fmul(b.bitcast(magnitude, VF), const(VF, 2.0**112))
    infinite = b.icmp_unsigned(">=", magnitude, const(VI, 0x7C00 << 13))
    special = b.or_(magnitude, const(VI, 0x7F800000))
    bits = b.select(infinite, special, b.bitcast(scaled, VI))
    return b.bitcast(b.or_(bits, b.shl(b.and_(wide, const(VI, 0x8000)), const(VI, 16))), VF)


def emit_f32_to_f16(b: Any, x: Any) -> Any:
    """f32 -> f16 bits, to nearest even, overflow to infinity."""
    if _converts_f16():
        return b.bitcast(b.fptrunc(x, ir.VectorType(ir.HalfType(), LANES)), VH)
    u = b.bitcast(x, VI)
    sign = b.lshr(b.and_(u, const(VI, 0x80000000)), const(VI, 16))
    mag = b.and_(u, const(VI, 0x7FFFFFFF))
    odd = b.and_(b.lshr(mag, const(VI, 13)), const(VI, 1))
    bias = const(VI, (0x0FFF - (112 << 23)) & 0xFFFFFFFF)
    normal = b.lshr(b.add(mag, b.add(bias, odd)), const(VI, 13))
    small = b.sub(b.bitcast(b.fadd(b.bitcast(mag, VF), const(VF, 0.5)), VI), const(VI, 0x3F000000))
    subnormal = b.icmp_unsigned("<", mag, const(VI, 113 << 23))
    half = b.select(subnormal, small, normal)
    half = b.select(b.icmp_unsigned(">=", mag, const(VI, 0x477FF000)), const(VI, 0x7C00), half)
    half = b.select(b.icmp_unsigned(">", mag, const(VI, 0x7F800000)), const(VI, 0x7E00), half)
    return b.trunc(b.or_(half, sign), VH)
