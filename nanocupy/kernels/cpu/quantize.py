"""Activations to 16 bits, a scale per group: what the integer linear kernels read."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i64, store_f32
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    iadd,
    isplat,
    istore_i16_pairs,
    isum,
    to_int,
    vabs,
    vfma,
    vload,
    vmax,
    vmaxval,
    vsplat,
    vsum,
)

SMALLEST = f4(1.1754944e-38)  # a scale below it has no finite inverse: such a group counts as zeros


@fn
def quantize_group(x, codes, meta, group):
    """One group: its codes, and (scale, scale * sum of codes) at meta.

    A value that is not finite makes the scale NaN, so that no integer hides it.
    """
    zero = vsplat(f4(0.0))
    peak, finite = zero, zero
    for i in range(0, group, 16):
        v = vload(x + 4 * i)
        peak = vmax(vabs(v), peak)
        finite = vfma(v, zero, finite)
    scale = vmaxval(peak) / f4(32767.0) + vsum(finite)
    inverse = vsplat(f4(1.0) / scale if scale > SMALLEST else f4(0.0))
    total = isplat(i4(0))
    for i in range(0, group, 16):
        n = to_int(vload(x + 4 * i) * inverse)
        istore_i16_pairs(codes + 2 * i, n)
        total = iadd(total, n)
    store_f32(meta, scale)
    store_f32(meta + 4, scale * f4(isum(total)))


def quantize(a, thread, threads):
    """a: x [rows, K] f32, out rows, rows*, K, x stride, out stride (bytes), group."""
    x, out, size, xs, os, group = a[0], a[1], a[3], a[4], a[5], a[6]
    groups = size // group
    work = load_i64(a[2]) * groups
    for item in range(work * thread // threads, work * (thread + 1) // threads):
        row, g = item // groups, item % groups
        record, start = out + row * os, g * group
        meta = record + 2 * size + 8 * g
        quantize_group(x + row * xs + 4 * start, record + 2 * start, meta, group)
    return 0
