"""Rows of a matrix by number."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i32, load_i64
from nanocupy.device.cpu.simd import i4, vload, vload_first, vstore, vstore_first


def take_rows(a, thread, threads):
    """a: out [count, width], x [rows, width] f32, index i32 [count], count*, rows, width.

    Code 1: an index outside [0, rows).
    """
    rows, width = a[4], a[5]
    vectors, rest = width // 16, i4(width % 16)
    count = load_i64(a[3])
    for i in range(count * thread // threads, count * (thread + 1) // threads):
        row = load_i32(a[2] + 4 * i)
        if row < 0 or row >= rows:
            return 1
        out, x = a[0] + 4 * width * i, a[1] + 4 * width * row
        for v in range(vectors):
            vstore(out + 64 * v, vload(x + 64 * v))
        vstore_first(out + 64 * vectors, rest, vload_first(x + 64 * vectors, rest))
    return 0
