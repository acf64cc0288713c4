"""silu(gate) * up."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i64
from nanocupy.device.cpu.simd import fn, i4, vload, vload_first, vstore, vstore_first
from nanocupy.kernels.cpu.elementwise import vsilu


@fn
def whole(out, gate, up, first, last):
    """Columns first to last of a row, in vectors."""
    for i in range(first, last):
        vstore(out + 64 * i, vsilu(vload(gate + 64 * i)) * vload(up + 64 * i))


@fn
def rest(out, gate, up, count):
    vstore_first(out, count, vsilu(vload_first(gate, count)) * vload_first(up, count))


def silu_mul(a, thread, threads):
    """a: out, gate, up, rows*, width, gate stride, up stride (bytes), gate offset, up offset.

    Every thread takes its share of the columns of every row, so that one row keeps all busy.
    """
    out, gate, up, width = a[0], a[1] + a[7], a[2] + a[8], a[4]
    vectors, last = width // 16, i4(width % 16)
    begin, end = vectors * thread // threads, vectors * (thread + 1) // threads
    for row in range(load_i64(a[3])):
        o, g, u = out + 4 * width * row, gate + a[5] * row, up + a[6] * row
        whole(o, g, u, begin, end)
        if thread == threads - 1:
            rest(o + 64 * vectors, g + 64 * vectors, u + 64 * vectors, last)
    return 0
