"""Elementwise operations on as many rows as are in use, taken as one long vector."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i64
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    vabs,
    vexp,
    vload,
    vload_first,
    vmax,
    vneg,
    vsplat,
    vstore,
    vstore_first,
)


@fn
def share(count, thread, threads):
    """This thread's elements, as (first, last) numbers of whole vectors and the rest after them."""
    whole = count // 16
    rest = count % 16 if thread == threads - 1 else 0
    return whole * thread // threads, whole * (thread + 1) // threads, i4(rest)


@fn
def vsilu(x):
    """x * sigmoid(x), from exp(-|x|) so that nothing overflows."""
    e = vexp(vneg(vabs(x)))
    return vmax(x * e, x) / (vsplat(f4(1)) + e)


def add(a, thread, threads):
    """a: out, x, y [rows, width] f32, rows*, width."""
    first, last, rest = share(load_i64(a[3]) * a[4], thread, threads)
    for i in range(first, last):
        vstore(a[0] + 64 * i, vload(a[1] + 64 * i) + vload(a[2] + 64 * i))
    end = 64 * last
    vstore_first(a[0] + end, rest, vload_first(a[1] + end, rest) + vload_first(a[2] + end, rest))
    return 0


def mul(a, thread, threads):
    """a: out, x, y [rows, width] f32, rows*, width."""
    first, last, rest = share(load_i64(a[3]) * a[4], thread, threads)
    for i in range(first, last):
        vstore(a[0] + 64 * i, vload(a[1] + 64 * i) * vload(a[2] + 64 * i))
    end = 64 * last
    vstore_first(a[0] + end, rest, vload_first(a[1] + end, rest) * vload_first(a[2] + end, rest))
    return 0


def silu(a, thread, threads):
    """a: out, x [rows, width] f32, rows*, width."""
    first, last, rest = share(load_i64(a[2]) * a[3], thread, threads)
    for i in range(first, last):
        vstore(a[0] + 64 * i, vsilu(vload(a[1] + 64 * i)))
    end = 64 * last
    vstore_first(a[0] + end, rest, vsilu(vload_first(a[1] + end, rest)))
    return 0
