"""Activations to 16 or 8 bits with a scale a group, or to bf16; alone, or by what makes them."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i64, store_f32
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    iadd,
    isplat,
    istore_i8,
    istore_i16_pairs,
    isum,
    to_int,
    vabs,
    vfma,
    vload,
    vload_first,
    vmax,
    vmaxval,
    vsplat,
    vstore_bf16_first,
    vsum,
)

SMALLEST = f4(1.1754944e-38)  # a scale below it has no finite inverse: such a group counts as zeros
F32, BF16 = 0, 3  # kinds; those between are the bytes of an integer


@fn
def scale_of(x, group, largest):
    """(scale of a group, 1 / scale in every lane) for codes up to `largest`.

    A value that is not finite makes the scale NaN, so that no integer hides it.
    """
    zero = vsplat(f4(0.0))
    peak, finite = zero, zero
    for i in range(0, group, 16):
        v = vload(x + 4 * i)
        peak = vmax(vabs(v), peak)
        finite = vfma(v, zero, finite)
    scale = vmaxval(peak) / largest + vsum(finite)
    return scale, vsplat(f4(1.0) / scale if scale > SMALLEST else f4(0.0))


@fn
def quantize_group(x, codes, meta, group, itemsize):
    """One group: codes of 2 or 1 bytes, and (scale, scale * sum of codes) at meta."""
    scale, inverse = scale_of(x, group, f4(32767.0) if itemsize == 2 else f4(127.0))
    total = isplat(i4(0))
    for i in range(0, group, 16):
        n = to_int(vload(x + 4 * i) * inverse)
        if itemsize == 2:
            istore_i16_pairs(codes + 2 * i, n)
        else:
            istore_i8(codes + i, n)
        total = iadd(total, n)
    store_f32(meta, scale)
    store_f32(meta + 4, scale * f4(isum(total)))


@fn
def round_groups(x, record, size, group, kind, first, last):
    """Groups first to last of a row of f32, to their places in its record."""
    for g in range(first, last):
        start = g * group
        if kind == BF16:
            count = i4(min(16, size - start))
            vstore_bf16_first(record + 2 * start, count, vload_first(x + 4 * start, count))
        else:
            meta = record + kind * size + 8 * g
            quantize_group(x + 4 * start, record + kind * start, meta, group, kind)


def quantize(a, thread, threads):
    """a: x [rows, K] f32, out rows, rows*, K, x stride, out stride (bytes), group, kind."""
    x, out, size, xs, os, group, kind = a[0], a[1], a[3], a[4], a[5], a[6], a[7]
    groups = (size + group - 1) // group
    work = load_i64(a[2]) * groups
    item, last = work * thread // threads, work * (thread + 1) // threads
    while item < last:
        row, g = item // groups, item % groups
        end = min(groups, g + last - item)
        round_groups(x + row * xs, out + row * os, size, group, kind, g, end)
        item += end - g
    return 0
