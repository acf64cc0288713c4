"""layer_norm."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_f32, load_i64
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    vfirst,
    vfma,
    vload,
    vload_first,
    vsplat,
    vstore,
    vstore_first,
    vsum,
)
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.layer_norm.cpu import LayerNormArgs
from nanocupy.kernels.rms_norm.cpu_body import inverse_rms

A = indices(LayerNormArgs)


@fn
def norm(out, x, weight, bias, size, eps):
    """One row. Lanes ascend along it, and a tree joins them: for the mean, then for squares."""
    whole, rest, zero = size // 16, i4(size % 16), vsplat(f4(0))
    end, total = 64 * whole, zero
    for i in range(whole):
        total = total + vload(x + 64 * i)
    last = vload_first(x + end, rest)
    mean = vsplat(f4(vsum(total + last) / f4(size)))
    squares = zero
    for i in range(whole):
        v = vload(x + 64 * i) - mean
        squares = vfma(v, v, squares)
    last = vfirst(rest, last - mean, zero)
    squares = vfma(last, last, squares)
    scale = inverse_rms(squares, size, eps)
    for i in range(whole):
        v = (vload(x + 64 * i) - mean) * scale * vload(weight + 64 * i)
        vstore(out + 64 * i, v + vload(bias + 64 * i))
    last = last * scale * vload_first(weight + end, rest)
    vstore_first(out + end, rest, last + vload_first(bias + end, rest))


def layer_norm(a, thread, threads):
    """Norm this thread's share of the rows."""
    size, eps, rows = a[A.size], load_f32(a[A.eps]), load_i64(a[A.rows])
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        out, x = a[A.out] + 4 * size * row, a[A.x] + a[A.x_stride] * row
        norm(out, x, a[A.weight], a[A.bias], size, eps)
    return 0
