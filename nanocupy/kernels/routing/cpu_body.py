"""What routers do inside rows. Every thread takes its share of the vectors."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_f32, load_i32, load_i64, store_f32, store_i32
from nanocupy.device.cpu.simd import f4, fn, i8t
from nanocupy.kernels.experts.cpu_body import exponentials
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.routing.cpu import SumArgs, TakeAlongArgs, VectorArgs

V, T, S = indices(VectorArgs), indices(TakeAlongArgs), indices(SumArgs)


def softmax(a, thread, threads):
    vectors, size = a[V.vectors], a[V.size]
    count = load_i64(a[V.rows]) * vectors
    for v in range(count * thread // threads, count * (thread + 1) // threads):
        row = v // vectors
        out = a[V.out] + 4 * size * v
        exponentials(out, a[V.x] + a[V.x_stride] * row + 4 * size * (v - row * vectors), size)
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
    vectors, size = a[V.vectors], a[V.size]
    count = load_i64(a[V.rows]) * vectors
    for v in range(count * thread // threads, count * (thread + 1) // threads):
        row = v // vectors
        out = a[V.out] + 4 * size * v
        x = a[V.x] + a[V.x_stride] * row + 4 * size * (v - row * vectors)
        for i in range(size):
            own, rank = load_f32(x + 4 * i), i8t(0)
            for j in range(size):
                other = load_f32(x + 4 * j)
                if below(other, own) or (j < i and not below(own, other)):
                    rank += 1
            store_i32(out + 4 * rank, i)
    return 0


def take_along(a, thread, threads):
    """Code 1: an index outside its vector."""
    vectors, size, taken = a[T.vectors], a[T.size], a[T.taken]
    count = load_i64(a[T.rows]) * vectors
    for v in range(count * thread // threads, count * (thread + 1) // threads):
        row = v // vectors
        place = v - row * vectors
        x = a[T.x] + a[T.x_stride] * row + 4 * size * place
        index = a[T.indexes] + a[T.index_stride] * row + 4 * taken * place
        for i in range(taken):
            at = load_i32(index + 4 * i)
            if at < 0 or at >= size:
                return 1
            store_f32(a[T.out] + 4 * (taken * v + i), load_f32(x + 4 * at))
    return 0


def sum_axis(a, thread, threads):
    vectors, summed, inner = a[S.vectors], a[S.summed], a[S.inner]
    count = load_i64(a[S.rows]) * vectors
    for v in range(count * thread // threads, count * (thread + 1) // threads):
        row = v // vectors
        x = a[S.x] + a[S.x_stride] * row + 4 * summed * inner * (v - row * vectors)
        for i in range(inner):
            total = f4(0)
            for m in range(summed):
                total += load_f32(x + 4 * (m * inner + i))
            store_f32(a[S.out] + 4 * (inner * v + i), total)
    return 0
