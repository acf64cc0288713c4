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
    """a: weights [rows, experts], out [rows, width], logits f32, rows*, experts, width, how many
    are chosen, whether weights are normalised, logits stride (bytes)."""
    experts, width, zero = a[4], a[5], vsplat(f4(0))
    rows = load_i64(a[3])
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        p = a[0] + 4 * experts * row
        exponentials(p, a[2] + a[8] * row, experts)
        for _ in range(a[6]):
            mark_largest(p, experts)
        weigh_marked(p, experts, a[7])
        out = a[1] + 4 * width * row
        for i in range(width // 16):
            vstore(out + 64 * i, zero)
        vstore_first(out + 64 * (width // 16), i4(width % 16), zero)
    return 0


def list_rows(a, thread, threads):
    """a: lists i32 [experts, capacity], counts i64 [experts], weights f32 [rows, experts], rows*,
    experts, capacity."""
    experts, rows = a[4], load_i64(a[3])
    for e in range(experts * thread // threads, experts * (thread + 1) // threads):
        count = i8t(0)
        for row in range(rows):
            if load_f32(a[2] + 4 * (experts * row + e)) != f4(0):
                store_i32(a[0] + 4 * (a[5] * e + count), row)
                count += 1
        store_i64(a[1] + 8 * e, count)
    return 0


def add_rows(a, thread, threads):
    """a: out f32 [rows, width], y f32 [count, width], index i32 [count], weights f32 [rows,
    experts], count*, experts, expert, width."""
    first, last, rest = share(a[7], thread, threads)
    end = 64 * last
    for i in range(load_i64(a[4])):
        row = load_i32(a[2] + 4 * i)
        weight = vsplat(load_f32(a[3] + 4 * (a[5] * row + a[6])))
        out, y = a[0] + 4 * a[7] * row, a[1] + 4 * a[7] * i
        for v in range(first, last):
            vstore(out + 64 * v, vfma(vload(y + 64 * v), weight, vload(out + 64 * v)))
        tail = vfma(vload_first(y + end, rest), weight, vload_first(out + end, rest))
        vstore_first(out + end, rest, tail)
    return 0


def list_places(a, thread, threads):
    """a: lists i32 [experts, capacity], sources i32 [experts, capacity], counts i64 [experts],
    picks i32, rows*, experts, capacity, chosen of each row, picks stride (bytes), share."""
    experts, chosen, rows = a[5], a[7], load_i64(a[4])
    for e in range(experts * thread // threads, experts * (thread + 1) // threads):
        count = i8t(0)
        for row in range(rows):
            for c in range(chosen):
                if load_i32(a[3] + a[8] * row + 4 * c) == e:
                    place, at = chosen * row + c, 4 * (a[6] * e + count)
                    store_i32(a[0] + at, place)
                    store_i32(a[1] + at, place // a[9])
                    count += 1
        store_i64(a[2] + 8 * e, count)
    return 0


def put_rows(a, thread, threads):
    """a: out, y [count, width] f32, index i32 [count], count*, width, out stride (bytes)."""
    width, count = a[4], load_i64(a[3])
    for i in range(count * thread // threads, count * (thread + 1) // threads):
        out, y = a[0] + a[5] * load_i32(a[2] + 4 * i), a[1] + 4 * width * i
        for v in range(width // 16):
            vstore(out + 64 * v, vload(y + 64 * v))
        end, rest = 64 * (width // 16), i4(width % 16)
        vstore_first(out + end, rest, vload_first(y + end, rest))
    return 0
