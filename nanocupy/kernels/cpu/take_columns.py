"""Columns of a matrix by number."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_f32, load_i32, load_i64, store_f32


def take_columns(a, thread, threads):
    """a: out, x f32 [rows, width], index i32 [width], count*, width, bytes from row to row of x.

    A thread has some columns of all rows. Code 1: an index outside [0, width).
    """
    width, stride = a[4], a[5]
    for row in range(load_i64(a[3])):
        out, x = a[0] + 4 * width * row, a[1] + stride * row
        for column in range(width * thread // threads, width * (thread + 1) // threads):
            source = load_i32(a[2] + 4 * column)
            if source < 0 or source >= width:
                return 1
            store_f32(out + 4 * column, load_f32(x + 4 * source))
    return 0
