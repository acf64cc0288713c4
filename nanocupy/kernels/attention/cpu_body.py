"""Attention of each row to the tokens before it, read from the paged cache.

A unit (see `cpu_units`) gives a *state* for each of its queries: m, the largest score; l, the sum
of exp(score - m); and the sums of exp(score - m) * V. The units of a run join in ascending order.
Where a run crosses from one thread to the next, the later threads keep their states apart and
`attend_merge` joins them, in the order in which one thread would have. `cpu_scratch` says where all
this lies.
"""

from __future__ import annotations

from math import inf
from typing import Any

from nanocupy.device.cpu.raw import fma, load_f32, load_i32, load_i64, store_f32, store_i64
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    i8t,
    vexp,
    vfirst,
    vfma,
    vload,
    vmax,
    vmaxval,
    vsplat,
    vstore,
    vstore_first,
    vsum,
)
from nanocupy.dtypes import F32
from nanocupy.kernels.attention import cpu_tiles
from nanocupy.kernels.attention.cpu_scratch import (
    CHUNK,
    CURSOR,
    FACTORS,
    KEYS,
    MAX_QUERIES,
    PITCH,
    SCORES,
    SEGMENTS,
    STATES,
    SUMS,
    TILES,
    VALUES,
    L,
)
from nanocupy.kernels.attention.cpu_tiles import (
    ITEMSIZE,
    SCALE_BYTES,
    exp_four_tiles,
    exp_tile,
    width_above,
    width_below,
)
from nanocupy.kernels.attention.cpu_units import (
    A,
    C,
    chunk_at,
    next_unit,
    start,
    tile_cost,
    tokens_in_chunk,
    tokens_of_run,
)
from nanocupy.kernels.quantize.cpu_body import round_groups


@fn
def state(scratch, size, number):
    return scratch + STATES + number * (SUMS + 4 * MAX_QUERIES * size)


@fn
def run_of(scratch):
    """(first row, end, query heads together) of the run in hand."""
    cursor = scratch + CURSOR
    return load_i64(cursor + C.row), load_i64(cursor + C.end), load_i64(cursor + C.together)


@fn
def chunk_start(scratch):
    """The first token of the chunk in hand."""
    cursor = scratch + CURSOR
    return CHUNK * (load_i64(cursor + C.first_chunk) + load_i64(cursor + C.at))


# ---- before the scores -------------------------------------------------------------------------


@fn
def load_queries(a, scratch):
    """q * scale of the run's queries, and zeros up to the width of a tile."""
    row, end, heads = run_of(scratch)
    line, scale, out = 4 * a[A.head_dim], vsplat(load_f32(a[A.scale_and_cap])), scratch
    for r in range(row, end):
        q = a[A.q] + a[A.q_stride] * r + line * load_i64(scratch + CURSOR + C.head)
        for _ in range(heads):
            for d in range(0, line, 64):
                vstore(out + d, vload(q + d) * scale)
            q += line
            out += PITCH
    n = (end - row) * heads
    for _ in range(width_above(n) - n):
        for d in range(0, line, 64):
            vstore(out + d, vsplat(f4(0)))
        out += PITCH


@fn
def find_tiles(a, scratch, first, last, tile_bytes):
    """Addresses of the chunk's tiles first to last, and of the nearest up to multiples of 4.

    After the keys come the first values, and after the values the last again: both are read ahead.
    Returns 0, or 2 if a block is outside the cache.
    """
    per_block = a[A.block_size] // 16
    row, start = load_i64(scratch + CURSOR + C.row), chunk_start(scratch)
    kv_head = load_i64(scratch + CURSOR + C.kv_head)
    table = a[A.block_tables] + 4 * a[A.max_blocks] * load_i32(a[A.sequences] + 4 * row)
    index = (start // 16 + first) // per_block
    tile = start // 16 + first - index * per_block
    for t in range(first, last):
        block = load_i32(table + 4 * index)
        if block < 0 or block >= a[A.blocks]:
            return 2
        place = block * a[A.block_stride] + tile_bytes * (kv_head * per_block + tile)
        store_i64(scratch + KEYS + 8 * t, a[A.k_cache] + place)
        store_i64(scratch + VALUES + 8 * t, a[A.v_cache] + place)
        tile += 1
        if tile == per_block:
            index, tile = index + 1, 0
    fill_tables(scratch, first, last)
    return 0


@fn
def fill_tables(scratch, first, last):
    keys, values = scratch + KEYS, scratch + VALUES
    for t in range(first // 4 * 4, first):
        store_i64(keys + 8 * t, load_i64(keys + 8 * first))
    end = (last + 3) // 4 * 4
    for t in range(last, end):
        store_i64(keys + 8 * t, load_i64(keys + 8 * (last - 1)))
    for t in range(4):
        store_i64(keys + 8 * (end + t), load_i64(values + 8 * min(first + t, last - 1)))
        store_i64(values + 8 * (last + t), load_i64(values + 8 * (last - 1)))


# ---- scores to probabilities -------------------------------------------------------------------


@fn
def cap_scores(scores, first, last, cap):
    """score = cap * tanh(score / cap) in tiles first to last."""
    one, two = vsplat(f4(1)), vsplat(f4(2))
    limit, inverse = vsplat(cap), vsplat(f4(2) / cap)
    for t in range(first, last):
        e = vexp(vload(scores + 64 * t) * inverse)
        vstore(scores + 64 * t, limit * (one - two / (e + one)))


@fn
def largest_of(scores, low, high):
    """The largest score in tiles low to high, in every lane."""
    even = odd = vload(scores + 64 * (high - 1))
    for t in range(low, high - 1, 2):
        even = vmax(vload(scores + 64 * t), even)
        odd = vmax(vload(scores + 64 * t + 64), odd)
    return vsplat(vmaxval(vmax(even, odd)))


@fn
def softmax(scores, first, last, m):
    """Scores of tokens first to last -> exp(score - largest); the largest to m, their sum to l."""
    low, high = first // 16, (last + 15) // 16
    nothing = vsplat(f4(-inf))
    head, tail = scores + 64 * low, scores + 64 * (high - 1)
    vstore(head, vfirst(i4(first % 16), nothing, vload(head)))
    vstore(tail, vfirst(i4(last - 16 * (high - 1)), vload(tail), nothing))
    largest, total, t = largest_of(scores, low, high), vsplat(f4(0)), low
    while t + 4 <= high:
        total = exp_four_tiles(scores + 64 * t, largest, total)
        t += 4
    while t < high:
        total = exp_tile(scores + 64 * t, largest, total)
        t += 1
    vstore_first(m, i4(1), largest)
    store_f32(m + L, vsum(total))


@fn
def softmax_of_unit(a, scratch, out):
    """Each query's scores to probabilities; m and l of the state at `out`."""
    row, end, heads = run_of(scratch)
    start, cap = chunk_start(scratch), load_f32(a[A.scale_and_cap] + 4)
    m, scores = out, scratch + SCORES
    for r in range(row, end):
        first, last = tokens_in_chunk(a, r, start)
        for _ in range(heads):
            if first < last:
                if cap != f4(0):
                    cap_scores(scores, first // 16, (last + 15) // 16, cap)
                softmax(scores, first, last, m)
            else:
                store_f32(m, f4(-inf))
                store_f32(m + L, f4(0))
            m += 4
            scores += PITCH


@fn
def times_scales_of_values(scratch, size, first, last):
    """Probabilities of tiles first to last times their tokens' scales: V is then its codes."""
    row, end, heads = run_of(scratch)
    for j in range((end - row) * heads):
        p = scratch + SCORES + PITCH * j
        for t in range(first, last):
            scales = vload(load_i64(scratch + VALUES + 8 * t) + 16 * size)
            vstore(p + 64 * t, vload(p + 64 * t) * scales)


# ---- which queries add which values ------------------------------------------------------------


@fn
def add_segment(scratch, count, n, query, first, last):
    entry = scratch + SEGMENTS + 32 * count
    store_i64(entry, n)
    store_i64(entry + 8, query)
    store_i64(entry + 16, first)
    store_i64(entry + 24, last)
    return count + 1


@fn
def segments_of_row(scratch, count, query, heads, first, last):
    """Tokens first to last for one row's queries, in exact widths."""
    while heads > 0 and first < last:
        n = width_below(heads)
        count = add_segment(scratch, count, n, query, first, last)
        query += n
        heads -= n
    return count


@fn
def find_segments(a, scratch):
    """Tokens that all rows attend to they read together; before and after, each row for itself.

    So no query ever meets a V that is not its own. Returns the number of segments.
    """
    row, end, heads = run_of(scratch)
    start, count = chunk_start(scratch), i8t(0)
    first, last = i8t(0), i8t(CHUNK)
    for r in range(row, end):
        f, t = tokens_in_chunk(a, r, start)
        first, last = max(first, f), min(last, t)
    shared = first < last
    for r in range(row, end):
        f, t = tokens_in_chunk(a, r, start)
        t = first if shared else t
        count = segments_of_row(scratch, count, (r - row) * heads, heads, f, t)
    if shared:
        count = add_segment(scratch, count, width_above((end - row) * heads), i8t(0), first, last)
        for r in range(row, end):
            t = tokens_in_chunk(a, r, start)[1]
            count = segments_of_row(scratch, count, (r - row) * heads, heads, last, t)
    return count


@fn
def clear_sums(scratch, out, size):
    row, end, heads = run_of(scratch)
    for i in range(0, 4 * size * width_above((end - row) * heads), 64):
        vstore(out + SUMS + i, vsplat(f4(0)))


# ---- joining -----------------------------------------------------------------------------------


@fn
def copy_query(out, part, size, j):
    store_f32(out + L + 4 * j, load_f32(part + L + 4 * j))
    start = SUMS + 4 * size * j
    for i in range(start, start + 4 * size, 64):
        vstore(out + i, vload(part + i))


@fn
def join_query(out, part, size, j, factors):
    """sums = sums * factors[0] + the part's sums * factors[1], and l likewise."""
    mine, other = load_f32(factors + 4 * j), load_f32(factors + 64 + 4 * j)
    l_before = load_f32(out + L + 4 * j) * mine
    store_f32(out + L + 4 * j, fma(load_f32(part + L + 4 * j), other, l_before))
    x, y, start = vsplat(mine), vsplat(other), SUMS + 4 * size * j
    for i in range(start, start + 4 * size, 64):
        vstore(out + i, vfma(vload(part + i), y, vload(out + i) * x))


@fn
def join(scratch, part, size, n):
    """Join the next chunk's state to the run's; a query without tokens in it is left alone."""
    out, factors = state(scratch, size, 0), scratch + FACTORS
    before, after = vload(out), vload(part)
    largest = vmax(before, after)
    vstore(factors, vexp(before - largest))
    vstore(factors + 64, vexp(after - largest))
    for j in range(n):
        if load_f32(part + L + 4 * j) == f4(0):
            continue
        if load_f32(out + L + 4 * j) == f4(0):
            copy_query(out, part, size, j)
        else:
            join_query(out, part, size, j, factors)
    vstore(out, largest)


@fn
def finish(a, scratch):
    """out = sums * (1 / l) of the run, a head of a row at a time."""
    row, end, heads = run_of(scratch)
    line = 4 * a[A.head_dim]
    l = state(scratch, a[A.head_dim], 0) + L  # noqa: E741
    sums = l + SUMS - L
    for r in range(row, end):
        for h in range(heads):
            inverse = vsplat(f4(1) / load_f32(l))
            for d in range(0, line, 64):
                vstore(sums + d, vload(sums + d) * inverse)
            write_head(a, sums, r, load_i64(scratch + CURSOR + C.head) + h)
            l += 4  # noqa: E741
            sums += line


@fn
def write_head(a, x, row, head):
    """One head to its place in a row of out, rounded if out is."""
    size, out = a[A.head_dim], a[A.out] + a[A.row_bytes] * row
    first = head * size
    if a[A.kind] == F32:
        for d in range(0, 4 * size, 64):
            vstore(out + 4 * first + d, vload(x + d))
    else:
        group, kind, zero = a[A.group], a[A.kind], a[A.zero]
        begin, end = first // group, (first + size) // group
        round_groups(x - 4 * first, out, a[A.heads] * size, group, kind, zero, begin, end)


# ---- kernels -----------------------------------------------------------------------------------


@fn
def check(a, rows):
    """0, or 1 if a position or a sequence is outside the block tables."""
    for row in range(rows):
        position, seq = load_i32(a[A.positions] + 4 * row), load_i32(a[A.sequences] + 4 * row)
        if position < 0 or position >= a[A.max_blocks] * a[A.block_size]:
            return 1
        if seq < 0 or seq >= a[A.max_sequences]:
            return 1
    return 0


@fn
def state_of_unit(scratch, size):
    """Where the unit in hand puts its state: that of the run itself, if it is the run's first."""
    cursor = scratch + CURSOR
    first, at = load_i64(cursor + C.first), load_i64(cursor + C.at)
    if first == 0:
        return state(scratch, size, min(at, 1))
    return state(scratch, size, 2 + at - first)


@fn
def begin_unit(a, scratch, tile_bytes):
    """Queries and addresses of tiles. Returns (code, first tile, last tile)."""
    cursor = scratch + CURSOR
    if load_i64(cursor + C.at) == load_i64(cursor + C.first):
        load_queries(a, scratch)
    row, end, _ = run_of(scratch)
    first, last = tokens_of_run(a, row, end)
    begin = chunk_start(scratch)
    low, high = max(first - begin, 0) // 16, (min(last - begin, CHUNK) + 15) // 16
    return find_tiles(a, scratch, low, high, tile_bytes), low, high


@fn
def end_unit(a, scratch):
    cursor = scratch + CURSOR
    row, end, heads = run_of(scratch)
    first, at = load_i64(cursor + C.first), load_i64(cursor + C.at)
    if first > 0:
        return
    if at > 0:
        join(scratch, state_of_unit(scratch, a[A.head_dim]), a[A.head_dim], (end - row) * heads)
    if at + 1 == load_i64(cursor + C.chunks):
        finish(a, scratch)


def _attend(kind: str) -> Any:
    scores, values = cpu_tiles.scores(kind), cpu_tiles.values(kind)
    itemsize, scale = ITEMSIZE[kind], SCALE_BYTES[kind]

    def attend(a, thread, threads):
        """Code 1: a position or a sequence outside the block tables; 2: a block outside the
        cache."""
        scratch, rows, size = (
            a[A.scratch] + thread * a[A.scratch_stride],
            load_i64(a[A.rows]),
            a[A.head_dim],
        )
        if check(a, rows) != 0:
            return 1
        tile_bytes = 16 * (size * itemsize + scale)
        start(a, scratch + CURSOR, rows, thread, threads)
        while next_unit(a, scratch + CURSOR, rows):
            code, first, last = begin_unit(a, scratch, tile_bytes)
            if code != 0:
                return code
            row, end, heads = run_of(scratch)
            n, p = width_above((end - row) * heads), scratch + SCORES
            out = state_of_unit(scratch, size)
            scores(n, scratch, scratch + KEYS, size, p, first, last)
            softmax_of_unit(a, scratch, out)
            if scale != 0:
                times_scales_of_values(scratch, size, first, last)
            clear_sums(scratch, out, size)
            for s in range(find_segments(a, scratch)):
                entry = scratch + SEGMENTS + 32 * s
                j, low, high = load_i64(entry + 8), load_i64(entry + 16), load_i64(entry + 24)
                sums = out + SUMS + 4 * size * j
                values(load_i64(entry), p + PITCH * j, low, high, scratch + VALUES, size, sums)
            end_unit(a, scratch)
        return 0

    return attend


attend_f32, attend_f16, attend_bf16, attend_i8 = (
    _attend(kind) for kind in ("f32", "f16", "bf16", "i8")
)


def attend_merge(a, thread, threads):
    """Complete the run that this thread began and later threads went on with."""
    scratch, size = a[A.scratch] + thread * a[A.scratch_stride], a[A.head_dim]
    cursor = scratch + CURSOR
    at, chunks = load_i64(cursor + C.last), load_i64(cursor + C.chunks)
    if load_i64(cursor + C.first) > 0 or at == chunks:
        return 0
    row, end, heads = run_of(scratch)
    total = load_i64(cursor + C.pass_cost) * a[A.kv_heads] * load_i64(cursor + C.shares)
    before, per_chunk = load_i64(cursor + C.before), TILES * tile_cost(cursor, row, end)
    for other in range(thread + 1, threads):
        theirs = a[A.scratch] + other * a[A.scratch_stride]
        last = chunk_at(total * (other + 1) // threads, before, per_chunk, chunks)
        for kept in range(last - at):
            join(scratch, state(theirs, size, 2 + kept), size, (end - row) * heads)
        at = max(at, last)
    finish(a, scratch)
    return 0
