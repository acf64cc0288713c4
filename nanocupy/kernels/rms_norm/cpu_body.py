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
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.quantize.cpu import ScratchRounding
from nanocupy.kernels.quantize.cpu_body import round_groups
from nanocupy.kernels.rms_norm.cpu import AddRmsNormArgs, RmsNormArgs

R, A = indices(RmsNormArgs), indices(AddRmsNormArgs)
R_OUT, A_OUT = indices(ScratchRounding, len(R)), indices(ScratchRounding, len(A))


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
    """Norm this thread's share of the vectors."""
    size, vectors, kind = a[R.size], a[R.vectors], a[R_OUT.kind]
    eps, scratch = load_f32(a[R.eps]), a[R_OUT.scratch] + a[R_OUT.scratch_bytes] * thread
    out_stride = a[R.out_stride] if kind == F32 else a[R_OUT.row_bytes]
    count = load_i64(a[R.rows]) * vectors
    for i in range(count * thread // threads, count * (thread + 1) // threads):
        row = i // vectors
        column = 4 * size * (i - row * vectors)
        out, x = a[R.out] + row * out_stride + column, a[R.x] + row * a[R.x_stride] + column
        norm_rounded(out, x, a[R.weight], size, eps, scratch, a[R_OUT.group], kind, a[R_OUT.zero])
    return 0


def add_rms_norm(a, thread, threads):
    """Add, then norm, this thread's share of the rows."""
    size, eps, rows = a[A.size], load_f32(a[A.eps]), load_i64(a[A.rows])
    scratch = a[A_OUT.scratch] + a[A_OUT.scratch_bytes] * thread
    group, kind, zero = a[A_OUT.group], a[A_OUT.kind], a[A_OUT.zero]
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        offset = 4 * size * row
        h, out = a[A.out_h] + offset, a[A.out] + a[A_OUT.row_bytes] * row
        add(h, a[A.x] + offset, a[A.residual] + offset, size)
        norm_rounded(out, h, a[A.weight], size, eps, scratch, group, kind, zero)
    return 0
