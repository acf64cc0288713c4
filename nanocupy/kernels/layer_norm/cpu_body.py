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
from nanocupy.kernels.rms_norm.cpu_body import inverse_rms


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
    """a: out, x [rows, size], weight, bias [size], rows*, size, eps*, x stride (bytes)."""
    size, eps, rows = a[5], load_f32(a[6]), load_i64(a[4])
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        norm(a[0] + 4 * size * row, a[1] + a[7] * row, a[2], a[3], size, eps)
    return 0
