"""Rows of a matrix by number, as they are or in bf16."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i32, load_i64
from nanocupy.device.cpu.simd import (
    i4,
    vload,
    vload_first,
    vstore,
    vstore_bf16,
    vstore_bf16_first,
    vstore_first,
)


def _take(store, store_first, itemsize):
    def kernel(a, thread, threads):
        """a: out [count, width], x [rows, width] f32, index i32 [count], count*, rows, width.

        Code 1: an index outside [0, rows).
        """
        rows, width = a[4], a[5]
        vectors, rest = width // 16, i4(width % 16)
        line = 16 * itemsize
        count = load_i64(a[3])
        for i in range(count * thread // threads, count * (thread + 1) // threads):
            row = load_i32(a[2] + 4 * i)
            if row < 0 or row >= rows:
                return 1
            out, x = a[0] + itemsize * width * i, a[1] + 4 * width * row
            for v in range(vectors):
                store(out + line * v, vload(x + 64 * v))
            store_first(out + line * vectors, rest, vload_first(x + 64 * vectors, rest))
        return 0

    return kernel


take_rows = _take(vstore, vstore_first, 4)
take_rows_bf16 = _take(vstore_bf16, vstore_bf16_first, 2)
