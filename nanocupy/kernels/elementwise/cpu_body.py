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
        """a: out, x, y [rows, width] f32, rows*, width, x stride, y stride (bytes)."""
        first, last, rest = share(a[4], thread, threads)
        end = 64 * last
        for row in range(load_i64(a[3])):
            out, x, y = a[0] + 4 * a[4] * row, a[1] + a[5] * row, a[2] + a[6] * row
            for i in range(first, last):
                vstore(out + 64 * i, function(vload(x + 64 * i), vload(y + 64 * i)))
            tail = function(vload_first(x + end, rest), vload_first(y + end, rest))
            vstore_first(out + end, rest, tail)
        return 0

    return kernel


add, mul = _binary(vadd), _binary(vmul)


def _unary(function):
    def kernel(a, thread, threads):
        """a: out, x [rows, width] f32, rows*, width, x stride (bytes)."""
        first, last, rest = share(a[3], thread, threads)
        end = 64 * last
        for row in range(load_i64(a[2])):
            out, x = a[0] + 4 * a[3] * row, a[1] + a[4] * row
            for i in range(first, last):
                vstore(out + 64 * i, function(vload(x + 64 * i)))
            vstore_first(out + end, rest, function(vload_first(x + end, rest)))
        return 0

    return kernel


silu, gelu = _unary(vsilu), _unary(vgelu)


def scale(a, thread, threads):
    """a: out, x [rows, width] f32, factor*, rows*, width, x stride (bytes)."""
    first, last, rest = share(a[4], thread, threads)
    end, factor = 64 * last, vsplat(load_f32(a[2]))
    for row in range(load_i64(a[3])):
        out, x = a[0] + 4 * a[4] * row, a[1] + a[5] * row
        for i in range(first, last):
            vstore(out + 64 * i, vload(x + 64 * i) * factor)
        vstore_first(out + end, rest, vload_first(x + end, rest) * factor)
    return 0
