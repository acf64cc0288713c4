"""Activations to 16 or 8 bits with a scale a group, or to bf16; alone, or by what makes them."""

from __future__ import annotations

from math import nan

from nanocupy.device.cpu.raw import load_i64, store_f32, store_i32
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    from_bits,
    i4,
    iadd,
    iand,
    iload,
    imax,
    imaxval,
    isplat,
    istore_i8,
    istore_i16_pairs,
    isum,
    to_int,
    vload,
    vload_first,
    vsplat,
    vstore_bf16_first,
)
from nanocupy.dtypes import BF16
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.quantize.cpu import QuantizeArgs, Rounding

A = indices(QuantizeArgs)
OUT = indices(Rounding, len(A))
INFINITE = i4(0x7F800000)  # the bits of infinity
SMALLEST = f4(1.1754944e-38)  # a scale below it has no finite inverse: such a group counts as zeros


@fn
def scale_of(x, group, largest):
    """(scale of a group, 1 / scale in every lane) for codes up to `largest`.

    A value that is not finite makes the scale NaN, so that no integer hides it. (As integers, the
    bits of |x| rise with |x|, and those of infinity and NaN are the highest.)
    """
    magnitude, peak = isplat(i4(0x7FFFFFFF)), isplat(i4(0))
    for i in range(0, group, 16):
        peak = imax(iand(iload(x + 4 * i), magnitude), peak)
    bits = imaxval(peak)
    scale = from_bits(bits) / largest if bits < INFINITE else f4(nan)
    return scale, vsplat(f4(1.0) / scale if scale > SMALLEST else f4(0.0))


@fn
def quantize_group(x, codes, meta, group, itemsize, zero):
    """One group: codes of 2 or 1 bytes; at meta its scale, and its sum times the scale or -zero."""
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
    if zero == 0:
        store_f32(meta + 4, scale * f4(isum(total)))
    else:
        store_i32(meta + 4, i4(-zero * isum(total)))


@fn
def round_groups(x, record, size, group, kind, zero, first, last):
    """Groups first to last of a row of f32, to their places in its record."""
    for g in range(first, last):
        start = g * group
        if kind == BF16:
            count = i4(min(16, size - start))
            vstore_bf16_first(record + 2 * start, count, vload_first(x + 4 * start, count))
        else:
            meta = record + kind * size + 8 * g
            quantize_group(x + 4 * start, record + kind * start, meta, group, kind, zero)


def quantize(a, thread, threads):
    """Round this thread's share of the groups of all rows."""
    size, group = a[A.size], a[OUT.group]
    groups = (size + group - 1) // group
    work = load_i64(a[A.rows]) * groups
    item, last = work * thread // threads, work * (thread + 1) // threads
    while item < last:
        row, g = item // groups, item % groups
        end = min(groups, g + last - item)
        x, out = a[A.x] + row * a[A.x_stride], a[A.out] + row * a[OUT.row_bytes]
        round_groups(x, out, size, group, a[OUT.kind], a[OUT.zero], g, end)
        item += end - g
    return 0
