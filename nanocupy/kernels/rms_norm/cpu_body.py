"""rms_norm, alone and after a residual addition."""

from __future__ import annotations

from math import sqrt

from nanocupy.device.cpu.raw import load_f32, load_i64
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    vfma,
    vload,
    vload_first,
    vsplat,
    vstore,
    vstore_first,
    vsum,
)
from nanocupy.dtypes import F32
from nanocupy.kernels.quantize.cpu_body import round_groups


@fn
def inverse_rms(squares, size, eps):
    """1 / sqrt(mean of squares + eps), from the lanes' sums of squares."""
    return vsplat(f4(1) / f4(sqrt(vsum(squares) / f4(size) + eps)))


@fn
def norm(out, x, weight, size, eps):
    """One vector of `size`: the lanes' sums of squares ascend along it, then a tree joins them."""
    whole, rest = size // 16, i4(size % 16)
    squares = vsplat(f4(0))
    for i in range(whole):
        v = vload(x + 64 * i)
        squares = vfma(v, v, squares)
    end = 64 * whole
    last = vload_first(x + end, rest)
    scale = inverse_rms(vfma(last, last, squares), size, eps)
    for i in range(whole):
        vstore(out + 64 * i, vload(x + 64 * i) * scale * vload(weight + 64 * i))
    vstore_first(out + end, rest, last * scale * vload_first(weight + end, rest))


@fn
def add(out, x, y, size):
    whole, rest = size // 16, i4(size % 16)
    for i in range(whole):
        vstore(out + 64 * i, vload(x + 64 * i) + vload(y + 64 * i))
    end = 64 * whole
    vstore_first(out + end, rest, vload_first(x + end, rest) + vload_first(y + end, rest))


@fn
def norm_rounded(out, x, weight, size, eps, scratch, group, kind, zero):
    """`norm`, then rounded to its place."""
    if kind == F32:
        norm(out, x, weight, size, eps)
    else:
        norm(scratch, x, weight, size, eps)
        round_groups(scratch, out, size, group, kind, zero, 0, (size + group - 1) // group)


def rms_norm(a, thread, threads):
    """a: out, x, weight [size], rows*, size, eps*, vectors a row, x stride, out stride, then as
    `quantize.arguments`.

    Strides of rows in bytes; the vectors of a row are adjacent, and where they are rounded there
    is one.
    """
    out, x, size, vectors, x_stride, out_stride = a[0], a[1], a[4], a[6], a[7], a[8]
    eps, scratch = load_f32(a[5]), a[9] + a[10] * thread
    row_bytes, group, kind, zero = a[11], a[12], a[13], a[14]
    count = load_i64(a[3]) * vectors
    for i in range(count * thread // threads, count * (thread + 1) // threads):
        row = i // vectors
        column = 4 * size * (i - row * vectors)
        target = out + row * (out_stride if kind == F32 else row_bytes) + column
        source = x + row * x_stride + column
        norm_rounded(target, source, a[2], size, eps, scratch, group, kind, zero)
    return 0


def add_rms_norm(a, thread, threads):
    """a: out_h, out, x, residual [rows, size], weight [size], rows*, size, eps*, then as
    `quantize.arguments`."""
    size, eps = a[6], load_f32(a[7])
    scratch, row_bytes, group, kind, zero = a[8] + a[9] * thread, a[10], a[11], a[12], a[13]
    rows = load_i64(a[5])
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        offset = 4 * size * row
        add(a[0] + offset, a[2] + offset, a[3] + offset, size)
        target = a[1] + row_bytes * row
        norm_rounded(target, a[0] + offset, a[4], size, eps, scratch, group, kind, zero)
    return 0
