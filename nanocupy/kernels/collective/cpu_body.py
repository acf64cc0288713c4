"""Collectives of the ranks on one host, through memory that all of them see.

Every thread works with the threads of its number on other ranks, and with nobody else. For each
piece of the data, in step: copy the own part into the own slot, publish the piece's epoch, wait
until all ranks have published it, read their slots. There are two sets of slots, for even and odd
epochs; that is enough, as whoever publishes an epoch has read all it wanted of the one before.
"""

from __future__ import annotations

from nanocupy.device.cpu.raw import atomic_load, atomic_store, load_i64, pause, yield_thread
from nanocupy.device.cpu.simd import (
    F,
    fn,
    i4,
    op,
    vload,
    vload_first,
    vstore,
    vstore_first,
)
from nanocupy.kernels.collective.cpu import GatherArgs, ReduceArgs, WindowArgs
from nanocupy.kernels.kernel import indices

A = indices(WindowArgs)
REDUCE, GATHER = (indices(made, start=len(WindowArgs._fields)) for made in (ReduceArgs, GatherArgs))
SPIN = 200  # looks, some microseconds, before a wait yields its core
GIVEN_UP = 9


@op(F, F, F)
def vmaximum(b, x, y):
    """Lane by lane; NaN where either is."""
    larger = b.select(b.fcmp_ordered(">", x, y), x, y)
    return b.select(b.fcmp_unordered("uno", x, x), x, larger)


@fn
def flag(a, rank, thread, threads):
    """Where (rank, thread) publishes its epoch."""
    return a[A.flags] + 64 * (rank * threads + thread)


@fn
def slot(a, rank, thread, threads, epoch):
    """Where (rank, thread) puts its data for an epoch."""
    mine = a[A.slot_bytes] // (64 * threads) * 64
    return a[A.slots] + ((epoch & 1) * a[A.ranks] + rank) * a[A.slot_bytes] + mine * thread


@fn
def meet(a, thread, threads, epoch):
    """Publish the epoch and wait until every rank has. Whether all did: else give up."""
    atomic_store(flag(a, a[A.rank], thread, threads), epoch)
    for rank in range(a[A.ranks]):
        theirs = flag(a, rank, thread, threads)
        tries = 0
        while True:
            if atomic_load(a[A.abort]) != 0:
                return False
            if atomic_load(theirs) >= epoch:
                break
            tries += 1
            if tries < SPIN:
                pause()
            else:
                yield_thread()
    return True


@fn
def copy(to, source, count):
    """count f32 from source."""
    for i in range(count // 16):
        vstore(to + 64 * i, vload(source + 64 * i))
    done, rest = count // 16 * 64, i4(count % 16)
    if rest:
        vstore_first(to + done, rest, vload_first(source + done, rest))


@fn
def offer(a, thread, threads, epoch, first, count):
    """Show the others count f32 of x, and wait for theirs. Whether all came: else give up."""
    copy(slot(a, a[A.rank], thread, threads, epoch), a[A.x] + 4 * first, count)
    return meet(a, thread, threads, epoch)


@fn
def pieces(a, count, threads):
    """Into how many pieces each thread divides its part of `count` f32, to fit into its slot."""
    room = threads * (a[A.slot_bytes] // (64 * threads))
    return ((count + 15) // 16 + room - 1) // room


@fn
def piece(count, number, numbers):
    """(first element, elements) of one of equal pieces of `count` f32: lines, but at the end."""
    lines = (count + 15) // 16
    first = 16 * (lines * number // numbers)
    return first, min(16 * (lines * (number + 1) // numbers), count) - first


@fn
def combine(out, slots, apart, ranks, count, how):
    """count f32 of every rank's slot, in the order of ranks. Slots end with a whole line."""
    for i in range((count + 15) // 16):
        v = vload(slots + 64 * i)
        for rank in range(1, ranks):
            other = vload(slots + apart * rank + 64 * i)
            v = vmaximum(v, other) if how else v + other
        left = count - 16 * i
        if left >= 16:
            vstore(out + 64 * i, v)
        else:
            vstore_first(out + 64 * i, i4(left), v)


def all_reduce(a, thread, threads):
    """Code 9: given up."""
    count = load_i64(a[A.rows]) * a[REDUCE.width]
    epoch = atomic_load(flag(a, a[A.rank], thread, threads))
    each = pieces(a, count, threads)
    for number in range(each * thread, each * (thread + 1)):
        epoch += 1
        first, some = piece(count, number, each * threads)
        if not offer(a, thread, threads, epoch, first, some):
            return GIVEN_UP
        slots = slot(a, 0, thread, threads, epoch)
        combine(a[A.out] + 4 * first, slots, a[A.slot_bytes], a[A.ranks], some, a[REDUCE.how])
    return 0


@fn
def spread(out, apart, width, source, first, count):
    """Elements first ... of rows of `width` f32, to rows that are `apart` f32 apart."""
    while count > 0:
        row, column = first // width, first % width
        some = min(count, width - column)
        copy(out + 4 * (apart * row + column), source, some)
        source, first, count = source + 4 * some, first + some, count - some


def gather_columns(a, thread, threads):
    """Code 9: given up."""
    rows, all_columns, most = load_i64(a[A.rows]), 0, 0
    for rank in range(a[A.ranks]):
        width = load_i64(a[GATHER.widths] + 8 * rank)
        all_columns, most = all_columns + width, max(most, width)
    own = rows * load_i64(a[GATHER.widths] + 8 * a[A.rank])
    epoch = atomic_load(flag(a, a[A.rank], thread, threads))
    each = pieces(a, rows * most, threads)  # the same on all ranks, as epochs are
    for number in range(each * thread, each * (thread + 1)):
        epoch += 1
        first, some = piece(own, number, each * threads)
        if not offer(a, thread, threads, epoch, first, some):
            return GIVEN_UP
        out = a[A.out]
        for rank in range(a[A.ranks]):
            width = load_i64(a[GATHER.widths] + 8 * rank)
            first, some = piece(rows * width, number, each * threads)
            source = slot(a, rank, thread, threads, epoch)
            spread(out, all_columns, width, source, first, some)
            out += 4 * width
    return 0
