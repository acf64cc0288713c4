"""Rows of a matrix by number, rounded as they are written."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i32, load_i64
from nanocupy.dtypes import F32
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.quantize.cpu import Rounding
from nanocupy.kernels.quantize.cpu_body import round_groups
from nanocupy.kernels.rope.cpu_body import copy
from nanocupy.kernels.take_rows.cpu import TakeRowsArgs

A = indices(TakeRowsArgs)
OUT = indices(Rounding, len(A))


def take_rows(a, thread, threads):
    """Copy this thread's share of the rows. Code 1: an index outside x."""
    width, group, kind = a[A.width], a[OUT.group], a[OUT.kind]
    count = load_i64(a[A.rows])
    for i in range(count * thread // threads, count * (thread + 1) // threads):
        row = load_i32(a[A.indices] + 4 * i)
        if row < 0 or row >= a[A.limit]:
            return 1
        out, x = a[A.out] + a[OUT.row_bytes] * i, a[A.x] + 4 * width * row
        if kind == F32:
            copy(out, x, width)
        else:
            groups = (width + group - 1) // group
            round_groups(x, out, width, group, kind, a[OUT.zero], 0, groups)
    return 0
