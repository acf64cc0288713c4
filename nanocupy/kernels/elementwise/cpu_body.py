"""Elementwise operations. Every thread takes its share of the columns of every row."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_f32, load_i64
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    vabs,
    vexp_negative,
    vload,
    vload_first,
    vneg,
    vpick,
    vsplat,
    vstore,
    vstore_first,
)
from nanocupy.kernels.elementwise.cpu import BinaryArgs, ScaleArgs, UnaryArgs
from nanocupy.kernels.kernel import indices

B, U, S = indices(BinaryArgs), indices(UnaryArgs), indices(ScaleArgs)


@fn
def share(width, thread, threads):
    """This thread's columns of a row: (first, last) vectors, and the columns after the last one."""
    whole = width // 16
    rest = width % 16 if thread == threads - 1 else 0
    return whole * thread // threads, whole * (thread + 1) // threads, i4(rest)


@fn
def vsilu(x):
    """x * sigmoid(x), from exp(-|x|) so that nothing overflows."""
    e = vexp_negative(vneg(vabs(x)))
    return vpick(x, x * e, x) / (vsplat(f4(1)) + e)


@fn
def vgelu(x):
    """x * sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 x^3): the tanh formula, likewise."""
    cube = vsplat(f4(0.044715)) * x * x * x
    e = vexp_negative(vneg(vabs(vsplat(f4(1.5957691216057308)) * (x + cube))))
    return vpick(x, x * e, x) / (vsplat(f4(1)) + e)


@fn
def vadd(x, y):
    return x + y


@fn
def vmul(x, y):
    return x * y


def _binary(function):
    def kernel(a, thread, threads):
        width = a[B.width]
        first, last, rest = share(width, thread, threads)
        end = 64 * last
        for row in range(load_i64(a[B.rows])):
            out, x = a[B.out] + 4 * width * row, a[B.x] + a[B.x_stride] * row
            y = a[B.y] + a[B.y_stride] * row
            for i in range(first, last):
                vstore(out + 64 * i, function(vload(x + 64 * i), vload(y + 64 * i)))
            tail = function(vload_first(x + end, rest), vload_first(y + end, rest))
            vstore_first(out + end, rest, tail)
        return 0

    return kernel


add, mul = _binary(vadd), _binary(vmul)


def _unary(function):
    def kernel(a, thread, threads):
        width = a[U.width]
        first, last, rest = share(width, thread, threads)
        end = 64 * last
        for row in range(load_i64(a[U.rows])):
            out, x = a[U.out] + 4 * width * row, a[U.x] + a[U.x_stride] * row
            for i in range(first, last):
                vstore(out + 64 * i, function(vload(x + 64 * i)))
            vstore_first(out + end, rest, function(vload_first(x + end, rest)))
        return 0

    return kernel


silu, gelu = _unary(vsilu), _unary(vgelu)


def scale(a, thread, threads):
    width, factor = a[S.width], vsplat(load_f32(a[S.factor]))
    first, last, rest = share(width, thread, threads)
    end = 64 * last
    for row in range(load_i64(a[S.rows])):
        out, x = a[S.out] + 4 * width * row, a[S.x] + a[S.x_stride] * row
        for i in range(first, last):
            vstore(out + 64 * i, vload(x + 64 * i) * factor)
        vstore_first(out + end, rest, vload_first(x + end, rest) * factor)
    return 0
