"""Columns of rows in other places."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i32, load_i64, store_i32
from nanocupy.kernels.columns.cpu import ColumnsArgs
from nanocupy.kernels.kernel import indices

A = indices(ColumnsArgs)


def move_columns(a, thread, threads):
    """Move this thread's share of the columns of every row."""
    count = a[A.columns]
    first, last = count * thread // threads, count * (thread + 1) // threads
    for row in range(load_i64(a[A.rows])):
        out, x = a[A.out] + a[A.out_stride] * row, a[A.x] + a[A.x_stride] * row
        for j in range(first, last):
            source, to = load_i32(a[A.source] + 4 * j), load_i32(a[A.to] + 4 * j)
            store_i32(out + 4 * to, load_i32(x + 4 * source))
    return 0
