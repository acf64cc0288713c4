"""Columns of rows in other places."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i32, load_i64, store_i32


def move_columns(a, thread, threads):
    """a: out, x of 32-bit words, from i32 [count], to i32 [count], rows*, count, x stride, out
    stride (bytes). Every thread takes its share of the columns of every row."""
    count = a[5]
    first, last = count * thread // threads, count * (thread + 1) // threads
    for row in range(load_i64(a[4])):
        out, x = a[0] + a[7] * row, a[1] + a[6] * row
        for j in range(first, last):
            source = x + 4 * load_i32(a[2] + 4 * j)
            store_i32(out + 4 * load_i32(a[3] + 4 * j), load_i32(source))
    return 0
