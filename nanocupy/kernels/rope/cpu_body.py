"""Rotary position embedding of the heads of each row."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_f32, load_i32, load_i64, store_f32
from nanocupy.device.cpu.simd import fn, i4, vload, vload_first, vstore, vstore_first
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.rope.cpu import RopeArgs

A = indices(RopeArgs)


@fn
def rotate_halves(out, x, table, half):
    """Pair j is (x[j], x[half + j]); table: half cosines, then half sines."""
    other = 4 * half
    for i in range(0, half - 15, 16):
        p = 4 * i
        first, second = vload(x + p), vload(x + other + p)
        cos, sin = vload(table + p), vload(table + other + p)
        vstore(out + p, first * cos - second * sin)
        vstore(out + other + p, second * cos + first * sin)
    n, p = i4(half % 16), 4 * (half - half % 16)
    first, second = vload_first(x + p, n), vload_first(x + other + p, n)
    cos, sin = vload_first(table + p, n), vload_first(table + other + p, n)
    vstore_first(out + p, n, first * cos - second * sin)
    vstore_first(out + other + p, n, second * cos + first * sin)


@fn
def rotate_pairs(out, x, table, half):
    """Pair j is (x[2j], x[2j + 1])."""
    for j in range(half):
        first, second = load_f32(x + 8 * j), load_f32(x + 8 * j + 4)
        cos, sin = load_f32(table + 4 * j), load_f32(table + 4 * (half + j))
        store_f32(out + 8 * j, first * cos - second * sin)
        store_f32(out + 8 * j + 4, second * cos + first * sin)


@fn
def copy(out, x, size):
    for i in range(0, size - 15, 16):
        vstore(out + 4 * i, vload(x + 4 * i))
    n, p = i4(size % 16), 4 * (size - size % 16)
    vstore_first(out + p, n, vload_first(x + p, n))


@fn
def rotate(out, x, table, size, dims, traditional):
    """A head: its first dims turn, the rest is copied."""
    if traditional:
        rotate_pairs(out, x, table, dims // 2)
    else:
        rotate_halves(out, x, table, dims // 2)
    copy(out + 4 * dims, x + 4 * dims, size - dims)


def rope(a, thread, threads):
    """Turn this thread's share of the heads. Code 1: a position outside the table."""
    heads, head_dim, dims, traditional = a[A.heads], a[A.head_dim], a[A.dims], a[A.traditional]
    count = load_i64(a[A.rows]) * heads
    for i in range(count * thread // threads, count * (thread + 1) // threads):
        row = i // heads
        column = 4 * head_dim * (i - row * heads)
        out, x = a[A.out] + a[A.out_stride] * row + column, a[A.x] + a[A.x_stride] * row + column
        position = load_i32(a[A.positions] + 4 * row)
        if position < 0 or position >= a[A.limit]:
            return 1
        rotate(out, x, a[A.table] + 4 * dims * position, head_dim, dims, traditional)
    return 0
