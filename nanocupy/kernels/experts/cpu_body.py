"""Which experts a row goes to, which rows an expert has, and adding up what experts made."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_f32, load_i32, load_i64, store_f32, store_i32, store_i64
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    i8t,
    vexp,
    vfma,
    vload,
    vload_first,
    vsplat,
    vstore,
    vstore_first,
)
from nanocupy.kernels.elementwise.cpu_body import share
from nanocupy.kernels.experts.cpu import (
    AddRowsArgs,
    ChooseArgs,
    ListPlacesArgs,
    ListRowsArgs,
    PutRowsArgs,
)
from nanocupy.kernels.kernel import indices

CHOOSE, LIST, ADD, PLACES, PUT = map(
    indices, (ChooseArgs, ListRowsArgs, AddRowsArgs, ListPlacesArgs, PutRowsArgs)
)


@fn
def exponentials(out, x, count):
    """out = exp(x - largest)."""
    largest = load_f32(x)
    for e in range(1, count):
        largest = max(largest, load_f32(x + 4 * e))
    whole, rest, top = count // 16, i4(count % 16), vsplat(largest)
    for i in range(whole):
        vstore(out + 64 * i, vexp(vload(x + 64 * i) - top))
    end = 64 * whole
    vstore_first(out + end, rest, vexp(vload_first(x + end, rest) - top))


@fn
def mark_largest(p, count):
    """Turn the sign of the largest value that is above 0."""
    best, at = f4(0), i8t(-1)
    for e in range(count):
        if load_f32(p + 4 * e) > best:
            best, at = load_f32(p + 4 * e), i8t(e)
    if at >= 0:
        store_f32(p + 4 * at, -best)


@fn
def weigh_marked(p, count, normalised):
    """Marked values over the sum of them, or of all; 0 for the others. NaN where a value is."""
    total, marked = f4(0), f4(0)
    for e in range(count):
        value = load_f32(p + 4 * e)
        total += abs(value)
        marked += max(-value, f4(0))
    broken = total != total
    divisor = marked if normalised != 0 and not broken else total
    for e in range(count):
        value = load_f32(p + 4 * e)
        store_f32(p + 4 * e, -value / divisor if value < f4(0) or broken else f4(0))


def choose_experts(a, thread, threads):
    experts, width, zero = a[CHOOSE.experts], a[CHOOSE.width], vsplat(f4(0))
    rows = load_i64(a[CHOOSE.rows])
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        p = a[CHOOSE.weights] + 4 * experts * row
        exponentials(p, a[CHOOSE.logits] + a[CHOOSE.logits_stride] * row, experts)
        for _ in range(a[CHOOSE.chosen]):
            mark_largest(p, experts)
        weigh_marked(p, experts, a[CHOOSE.normalised])
        out = a[CHOOSE.out] + 4 * width * row
        for i in range(width // 16):
            vstore(out + 64 * i, zero)
        vstore_first(out + 64 * (width // 16), i4(width % 16), zero)
    return 0


def list_rows(a, thread, threads):
    experts, rows = a[LIST.experts], load_i64(a[LIST.rows])
    for e in range(experts * thread // threads, experts * (thread + 1) // threads):
        count = i8t(0)
        for row in range(rows):
            if load_f32(a[LIST.weights] + 4 * (experts * row + e)) != f4(0):
                store_i32(a[LIST.lists] + 4 * (a[LIST.capacity] * e + count), row)
                count += 1
        store_i64(a[LIST.counts] + 8 * e, count)
    return 0


def add_rows(a, thread, threads):
    width = a[ADD.width]
    first, last, rest = share(width, thread, threads)
    end = 64 * last
    for i in range(load_i64(a[ADD.rows])):
        row = load_i32(a[ADD.numbers] + 4 * i)
        weight = vsplat(load_f32(a[ADD.weights] + 4 * (a[ADD.experts] * row + a[ADD.expert])))
        out, y = a[ADD.out] + 4 * width * row, a[ADD.y] + 4 * width * i
        for v in range(first, last):
            vstore(out + 64 * v, vfma(vload(y + 64 * v), weight, vload(out + 64 * v)))
        tail = vfma(vload_first(y + end, rest), weight, vload_first(out + end, rest))
        vstore_first(out + end, rest, tail)
    return 0


def list_places(a, thread, threads):
    experts, chosen, rows = a[PLACES.experts], a[PLACES.chosen], load_i64(a[PLACES.rows])
    for e in range(experts * thread // threads, experts * (thread + 1) // threads):
        count = i8t(0)
        for row in range(rows):
            for c in range(chosen):
                if load_i32(a[PLACES.picks] + a[PLACES.picks_stride] * row + 4 * c) == e:
                    place, at = chosen * row + c, 4 * (a[PLACES.capacity] * e + count)
                    store_i32(a[PLACES.lists] + at, place)
                    store_i32(a[PLACES.sources] + at, place // a[PLACES.share])
                    count += 1
        store_i64(a[PLACES.counts] + 8 * e, count)
    return 0


def put_rows(a, thread, threads):
    width, count = a[PUT.width], load_i64(a[PUT.rows])
    for i in range(count * thread // threads, count * (thread + 1) // threads):
        out = a[PUT.out] + 4 * width * load_i32(a[PUT.places] + 4 * i)
        y = a[PUT.y] + 4 * width * i
        for v in range(width // 16):
            vstore(out + 64 * v, vload(y + 64 * v))
        end, rest = 64 * (width // 16), i4(width % 16)
        vstore_first(out + end, rest, vload_first(y + end, rest))
    return 0
