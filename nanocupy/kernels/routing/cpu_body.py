"""What routers do inside rows. Every thread takes its share of the vectors."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_f32, load_i32, load_i64, store_f32, store_i32
from nanocupy.device.cpu.simd import f4, fn, i8t
from nanocupy.kernels.experts.cpu_body import exponentials


def softmax(a, thread, threads):
    """a: out, x, rows*, vectors a row, size, x stride (bytes)."""
    vectors, size = a[3], a[4]
    count = load_i64(a[2]) * vectors
    for v in range(count * thread // threads, count * (thread + 1) // threads):
        row = v // vectors
        out = a[0] + 4 * size * v
        exponentials(out, a[1] + a[5] * row + 4 * size * (v - row * vectors), size)
        total = f4(0)
        for i in range(size):
            total += load_f32(out + 4 * i)
        for i in range(size):
            store_f32(out + 4 * i, load_f32(out + 4 * i) / total)
    return 0


@fn
def below(p, q):
    """Whether p comes before q; NaN comes after all numbers."""
    return p < q or (q != q and p == p)


def argsort(a, thread, threads):
    """a: out i32, x, rows*, vectors a row, size, x stride (bytes)."""
    vectors, size = a[3], a[4]
    count = load_i64(a[2]) * vectors
    for v in range(count * thread // threads, count * (thread + 1) // threads):
        row = v // vectors
        out, x = a[0] + 4 * size * v, a[1] + a[5] * row + 4 * size * (v - row * vectors)
        for i in range(size):
            own, rank = load_f32(x + 4 * i), i8t(0)
            for j in range(size):
                other = load_f32(x + 4 * j)
                if below(other, own) or (j < i and not below(own, other)):
                    rank += 1
            store_i32(out + 4 * rank, i)
    return 0


def take_along(a, thread, threads):
    """a: out, x, index i32, rows*, vectors a row, size, how many of them, x stride, index stride
    (bytes). Code 1: an index outside."""
    vectors, size, wanted = a[4], a[5], a[6]
    count = load_i64(a[3]) * vectors
    for v in range(count * thread // threads, count * (thread + 1) // threads):
        row = v // vectors
        place = v - row * vectors
        x, index = a[1] + a[7] * row + 4 * size * place, a[2] + a[8] * row + 4 * wanted * place
        for i in range(wanted):
            at = load_i32(index + 4 * i)
            if at < 0 or at >= size:
                return 1
            store_f32(a[0] + 4 * (wanted * v + i), load_f32(x + 4 * at))
    return 0


def sum_axis(a, thread, threads):
    """a: out, x, rows*, vectors a row, how many are one, inner, x stride (bytes)."""
    vectors, many, inner = a[3], a[4], a[5]
    count = load_i64(a[2]) * vectors
    for v in range(count * thread // threads, count * (thread + 1) // threads):
        row = v // vectors
        x = a[1] + a[6] * row + 4 * many * inner * (v - row * vectors)
        for i in range(inner):
            total = f4(0)
            for m in range(many):
                total += load_f32(x + 4 * (m * inner + i))
            store_f32(a[0] + 4 * (inner * v + i), total)
    return 0
