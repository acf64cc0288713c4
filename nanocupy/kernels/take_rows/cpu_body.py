"""Rows of a matrix by number, rounded as they are written."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i32, load_i64
from nanocupy.dtypes import F32
from nanocupy.kernels.quantize.cpu_body import round_groups
from nanocupy.kernels.rope.cpu_body import copy


def take_rows(a, thread, threads):
    """a: out, x [rows, width] f32, index i32 [count], count*, rows, width, then as
    `quantize.rounding`.

    Code 1: an index outside [0, rows).
    """
    rows, width, row_bytes, group, kind, zero = a[4], a[5], a[6], a[7], a[8], a[9]
    count = load_i64(a[3])
    for i in range(count * thread // threads, count * (thread + 1) // threads):
        row = load_i32(a[2] + 4 * i)
        if row < 0 or row >= rows:
            return 1
        out, x = a[0] + row_bytes * i, a[1] + 4 * width * row
        if kind == F32:
            copy(out, x, width)
        else:
            round_groups(x, out, width, group, kind, zero, 0, (width + group - 1) // group)
    return 0
