"""Attention of each row to the tokens before it, read from the paged cache.

Work is cut into units: the queries of one KV head in one run of rows (up to a register tile of them)
against one chunk of 256 tokens. A unit's result is (m, l, sums): its largest score, the sum of
exp(score - m), and the sum of exp(score - m) * V. Units of a run join in ascending order. Threads
take equal shares of the units; where a run crosses from one thread to the next, the later threads
keep their results apart and `attend_merge` joins them, in the same order as one thread would.

A thread's scratch:

    Q        q * scale, PITCH bytes a query
    SCORES   scores, then probabilities, PITCH bytes a query (one chunk)
    KEYS, VALUES   addresses of the chunk's 16 tiles
    FACTORS  two vectors for the join
    HEADER   the run that the next thread continues, for attend_merge
    STATES   states, see below: that of the run, that of the chunk, then those kept apart

A state is m [16], l [16], sums [queries][head_dim], all f32. l is 0 where a query has no token.
"""

from __future__ import annotations

from math import inf
from typing import Any

from nanocupy.device.cpu.raw import (
    fma,
    load_f32,
    load_i32,
    load_i64,
    store_f32,
    store_i64,
)
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    vexp,
    vfirst,
    vfma,
    vload,
    vmax,
    vmaxval,
    vsplat,
    vstore,
    vsum,
)
from nanocupy.kernels.cpu import attention_tiles
from nanocupy.kernels.cpu.attention_tiles import ITEMSIZE, MOST, PITCH, width_above, width_below

CHUNK = 256  # tokens that are reduced before they join the rest
TILES = CHUNK // 16

# arguments
OUT, Q, K, V, TABLES, POSITIONS, SEQS, ROWS, FLOATS, SCRATCH = range(10)
HEADS, KV_HEADS, SIZE, BLOCK_SIZE, BLOCKS = range(10, 15)
MAX_SEQS, MAX_BLOCKS, WINDOW, Q_OFFSET, Q_STRIDE, SCRATCH_STRIDE = range(15, 21)

# a thread's scratch, in bytes
_SCORES = 12 * PITCH
_KEYS = 2 * _SCORES
_VALUES = _KEYS + 8 * TILES
_FACTORS = _VALUES + 8 * TILES
_HEADER = _FACTORS + 128
_STATES = _HEADER + 64
_SUMS = 128  # where a state's sums begin

# a thread's header, in bytes
_PART, _ROW, _END, _BEFORE, _NEXT = 0, 8, 16, 24, 32  # _PART is -1 when no run is unfinished


@fn
def state(scratch, size, number):
    return scratch + _STATES + number * (_SUMS + 4 * 12 * size)


# ---- which queries, which tokens -------------------------------------------------------------------


@fn
def heads_together(a):
    """How many query heads of a group one unit takes: the group, or an even part of it."""
    group = a[HEADS] // a[KV_HEADS]
    parts = (group + MOST - 1) // MOST
    return (group + parts - 1) // parts


@fn
def parts_of(a):
    """Passes over the rows: one for each KV head and each part of its group."""
    heads, group = heads_together(a), a[HEADS] // a[KV_HEADS]
    return a[KV_HEADS] * ((group + heads - 1) // heads)


@fn
def first_head(a, part):
    """(KV head, first query head, query heads) of a pass."""
    heads, group = heads_together(a), a[HEADS] // a[KV_HEADS]
    parts = (group + heads - 1) // heads
    kv_head = part // parts
    start = heads * (part - kv_head * parts)
    return kv_head, kv_head * group + start, min(heads, group - start)


@fn
def run_end(a, row, rows):
    """End of the run that starts at a row: rows of one sequence, within an aligned group."""
    most = MOST // heads_together(a)
    end = min(rows, (row // most + 1) * most)
    seq = load_i32(a[SEQS] + 4 * row)
    row += 1
    while row < end and load_i32(a[SEQS] + 4 * row) == seq:
        row += 1
    return row


@fn
def tokens(a, row):
    """Tokens first to last (exclusive) that a row attends to."""
    last = load_i32(a[POSITIONS] + 4 * row) + 1
    return (max(0, last - a[WINDOW]) if a[WINDOW] else 0), last


@fn
def tokens_of_any(a, row, end):
    """From the first to the last token that any row of a run attends to."""
    first, last = tokens(a, row)
    for r in range(row + 1, end):
        f, t = tokens(a, r)
        first, last = min(first, f), max(last, t)
    return first, last


@fn
def tokens_of_all(a, row, end, start):
    """Tokens of a chunk that every row of a run attends to, counted from its start."""
    first, last = 0, CHUNK
    for r in range(row, end):
        f, t = tokens(a, r)
        first, last = max(first, f - start), min(last, t - start)
    return first, last


# ---- sharing the units out ---------------------------------------------------------------------------


@fn
def chunk_cost(a, row, end):
    """What a chunk costs a run: a load for all its queries, an fma for each."""
    return TILES * ((end - row) * heads_together(a) + 2)


@fn
def chunks_of(a, row, end):
    """(first chunk, chunks, cost) of a run."""
    first, last = tokens_of_any(a, row, end)
    chunk = first // CHUNK
    tiles = (last + 15) // 16 - chunk * TILES
    cost = tiles * (chunk_cost(a, row, end) // TILES)
    return chunk, (tiles + TILES - 1) // TILES, cost


@fn
def cost_of_pass(a, rows):
    total, row = 0, 0
    while row < rows:
        end = run_end(a, row, rows)
        total += chunks_of(a, row, end)[2]
        row = end
    return total


@fn
def first_chunk_from(share, before, cost, chunks):
    """The first of a run's chunks whose cost begins at `share` or later; chunks, if none does."""
    return min(max((share - before + cost - 1) // cost, 0), chunks)


# ---- one unit ------------------------------------------------------------------------------------------


@fn
def load_queries(a, scratch, row, end, head, heads):
    """q * scale of a run's queries, and zeros up to the width of a tile."""
    size, scale = a[SIZE], vsplat(load_f32(a[FLOATS]))
    out = scratch
    for r in range(row, end):
        q = a[Q] + a[Q_OFFSET] + a[Q_STRIDE] * r + 4 * size * head
        for _ in range(heads):
            for d in range(0, 4 * size, 64):
                vstore(out + d, vload(q + d) * scale)
            q += 4 * size
            out += PITCH
    n = (end - row) * heads
    for _ in range(width_above(n) - n):
        for d in range(0, 4 * size, 64):
            vstore(out + d, vsplat(f4(0)))
        out += PITCH


@fn
def find_tiles(a, scratch, seq, kv_head, start, first, last, itemsize):
    """Addresses of tiles first to last of a chunk, then of the last again up to a multiple of 4.

    Returns 0, or 2 if a block is outside the cache.
    """
    per_block = a[BLOCK_SIZE] // 16
    bytes_of = 16 * a[SIZE] * itemsize
    table = a[TABLES] + 4 * a[MAX_BLOCKS] * seq
    offset = 0
    for t in range(first // 4 * 4, (last + 3) // 4 * 4):
        tile = start // 16 + min(max(t, first), last - 1)
        index = tile // per_block
        block = load_i32(table + 4 * index)
        if block < 0 or block >= a[BLOCKS]:
            return 2
        offset = bytes_of * ((block * a[KV_HEADS] + kv_head) * per_block + tile - index * per_block)
        store_i64(scratch + _KEYS + 8 * t, a[K] + offset)
        store_i64(scratch + _VALUES + 8 * t, a[V] + offset)
    return 0


@fn
def cap_scores(scores, first, last, cap):
    """score = cap * tanh(score / cap) in tiles first to last."""
    one, two = vsplat(f4(1)), vsplat(f4(2))
    limit, inverse = vsplat(cap), vsplat(f4(2) / cap)
    for t in range(first, last):
        e = vexp(vload(scores + 64 * t) * inverse)
        vstore(scores + 64 * t, limit * (one - two / (e + one)))


@fn
def softmax(scores, first, last, m, l):  # noqa: E741
    """Scores of tokens first to last -> exp(score - largest); the largest to m, their sum to l."""
    low, high = first // 16, (last + 15) // 16
    nothing = vsplat(f4(-inf))
    head, tail = scores + 64 * low, scores + 64 * (high - 1)
    vstore(head, vfirst(i4(first % 16), nothing, vload(head)))
    vstore(tail, vfirst(i4(last - 16 * (high - 1)), vload(tail), nothing))
    best = nothing
    for t in range(low, high):
        best = vmax(vload(scores + 64 * t), best)
    largest = vmaxval(best)
    shift, total = vsplat(largest), vsplat(f4(0))
    for t in range(low, high):
        p = vexp(vload(scores + 64 * t) - shift)
        vstore(scores + 64 * t, p)
        total = total + p
    store_f32(m, largest)
    store_f32(l, vsum(total))


@fn
def softmax_of_run(a, scratch, out, row, end, heads, start):
    cap = load_f32(a[FLOATS] + 4)
    for r in range(row, end):
        first, last = tokens(a, r)
        first, last = max(first - start, 0), min(last - start, CHUNK)
        for j in range((r - row) * heads, (r - row + 1) * heads):
            if first < last:
                scores = scratch + _SCORES + PITCH * j
                if cap != f4(0):
                    cap_scores(scores, first // 16, (last + 15) // 16, cap)
                softmax(scores, first, last, out + 4 * j, out + 64 + 4 * j)
            else:
                store_f32(out + 64 + 4 * j, f4(0))


@fn
def clear(out, size, n):
    for i in range(0, 4 * size * n, 64):
        vstore(out + _SUMS + i, vsplat(f4(0)))


def _unit(kind: str) -> Any:
    """The function of one unit, and that of the values alone, for a kind of cache."""
    scores, values, itemsize = (
        attention_tiles.scores(kind),
        attention_tiles.values(kind),
        ITEMSIZE[kind],
    )

    @fn
    def values_of_row(scratch, out, size, j, heads, first, last):
        """Add tokens first to last to the sums of one row's queries j ..., in exact widths."""
        while heads > 0 and first < last:
            n = width_below(heads)
            p, table = scratch + _SCORES + PITCH * j, scratch + _VALUES
            values(n, p, first, last, table, size, out + _SUMS + 4 * size * j)
            j += n
            heads -= n

    @fn
    def values_of_run(a, scratch, out, row, end, heads, start):
        """What all rows share, they read together; before and after it, each row for itself."""
        size = a[SIZE]
        first, last = tokens_of_all(a, row, end, start)
        if first >= last:
            first = last = 0
        for r in range(row, end):
            f, t = tokens(a, r)
            f, t = max(f - start, 0), min(t - start, CHUNK)
            if first == last:
                values_of_row(scratch, out, size, (r - row) * heads, heads, f, t)
            else:
                values_of_row(scratch, out, size, (r - row) * heads, heads, f, first)
        if first == last:
            return
        n = width_above((end - row) * heads)
        values(n, scratch + _SCORES, first, last, scratch + _VALUES, size, out + _SUMS)
        for r in range(row, end):
            t = min(tokens(a, r)[1] - start, CHUNK)
            values_of_row(scratch, out, size, (r - row) * heads, heads, last, t)

    @fn
    def unit(a, scratch, out, row, end, part, chunk):
        """Queries in scratch against one chunk, to the state at `out`. Returns 0 or a code."""
        kv_head, _, heads = first_head(a, part)
        n, start, size = (end - row) * heads, chunk * CHUNK, a[SIZE]
        first, last = tokens_of_any(a, row, end)
        first, last = max(first - start, 0) // 16, (min(last - start, CHUNK) + 15) // 16
        seq = load_i32(a[SEQS] + 4 * row)
        code = find_tiles(a, scratch, seq, kv_head, start, first, last, itemsize)
        if code != 0:
            return code
        wide = width_above(n)
        scores(wide, scratch, scratch + _KEYS, size, scratch + _SCORES, first, last)
        softmax_of_run(a, scratch, out, row, end, heads, start)
        clear(out, size, wide)
        values_of_run(a, scratch, out, row, end, heads, start)
        return 0

    return unit


# ---- joining units -------------------------------------------------------------------------------------


@fn
def copy_query(out, part, size, j):
    store_f32(out + 4 * j, load_f32(part + 4 * j))
    store_f32(out + 64 + 4 * j, load_f32(part + 64 + 4 * j))
    start = _SUMS + 4 * size * j
    for i in range(start, start + 4 * size, 64):
        vstore(out + i, vload(part + i))


@fn
def join_query(out, part, size, j, factors):
    """sums = sums * factors[0] + part's sums * factors[1], and l likewise."""
    mine, other = load_f32(factors + 4 * j), load_f32(factors + 64 + 4 * j)
    l = load_f32(out + 64 + 4 * j) * mine  # noqa: E741
    store_f32(out + 64 + 4 * j, fma(load_f32(part + 64 + 4 * j), other, l))
    x, y, start = vsplat(mine), vsplat(other), _SUMS + 4 * size * j
    for i in range(start, start + 4 * size, 64):
        vstore(out + i, vfma(vload(part + i), y, vload(out + i) * x))


@fn
def join(out, part, size, n, factors):
    """Join the next chunk's state to the state of the chunks before it."""
    before, after = vload(out), vload(part)
    largest = vmax(before, after)
    vstore(factors, vexp(before - largest))
    vstore(factors + 64, vexp(after - largest))
    for j in range(n):
        if load_f32(part + 64 + 4 * j) == f4(0):
            continue
        if load_f32(out + 64 + 4 * j) == f4(0):
            copy_query(out, part, size, j)
        else:
            join_query(out, part, size, j, factors)
            store_f32(out + 4 * j, max(load_f32(out + 4 * j), load_f32(part + 4 * j)))


@fn
def finish(a, part_state, row, end, part):
    """out = sums / l."""
    _, head, heads = first_head(a, part)
    size = a[SIZE]
    for j in range((end - row) * heads):
        r = row + j // heads
        out = a[OUT] + 4 * size * (r * a[HEADS] + head + j % heads)
        sums, l = part_state + _SUMS + 4 * size * j, vsplat(load_f32(part_state + 64 + 4 * j))  # noqa: E741
        for d in range(0, 4 * size, 64):
            vstore(out + d, vload(sums + d) / l)


# ---- kernels ---------------------------------------------------------------------------------------------


@fn
def check(a, rows):
    """0, or 1 if a position or a sequence is outside its table."""
    for row in range(rows):
        position, seq = load_i32(a[POSITIONS] + 4 * row), load_i32(a[SEQS] + 4 * row)
        if position < 0 or position >= a[MAX_BLOCKS] * a[BLOCK_SIZE]:
            return 1
        if seq < 0 or seq >= a[MAX_SEQS]:
            return 1
    return 0


def _kernel(kind: str) -> Any:
    unit = _unit(kind)

    @fn
    def units(a, scratch, row, end, part, chunk, first, last, chunks, before):
        """Chunks first to last of a run, of `chunks` that it has from `chunk` on."""
        _, head, heads = first_head(a, part)
        n, size = (end - row) * heads, a[SIZE]
        load_queries(a, scratch, row, end, head, heads)
        whole = state(scratch, size, 0)
        for c in range(first, last):
            out = state(scratch, size, 2 + c - first)
            if first == 0:
                out = whole if c == 0 else state(scratch, size, 1)
            code = unit(a, scratch, out, row, end, part, chunk + c)
            if code != 0:
                return code
            if first == 0 and c > 0:
                join(whole, out, size, n, scratch + _FACTORS)
        if first == 0 and last == chunks:
            finish(a, whole, row, end, part)
        elif first == 0:
            header = scratch + _HEADER
            store_i64(header + _PART, part)
            store_i64(header + _ROW, row)
            store_i64(header + _END, end)
            store_i64(header + _BEFORE, before)
            store_i64(header + _NEXT, last)
        return 0

    @fn
    def one_pass(a, scratch, part, rows, before, begin, stop):
        """This thread's units of a pass whose cost begins at `before`."""
        row = 0
        while row < rows and before < stop:
            end = run_end(a, row, rows)
            chunk, chunks, cost = chunks_of(a, row, end)
            if before + cost > begin:
                step = chunk_cost(a, row, end)
                first = first_chunk_from(begin, before, step, chunks)
                last = first_chunk_from(stop, before, step, chunks)
                if first < last:
                    code = units(
                        a, scratch, row, end, part, chunk, first, last, chunks, before
                    )
                    if code != 0:
                        return code
            before += cost
            row = end
        return 0

    def attend(a, thread, threads):
        scratch, rows = a[SCRATCH] + thread * a[SCRATCH_STRIDE], load_i64(a[ROWS])
        store_i64(scratch + _HEADER + _PART, -1)
        if check(a, rows) != 0:
            return 1
        parts, cost = parts_of(a), cost_of_pass(a, rows)
        begin, stop = parts * cost * thread // threads, parts * cost * (thread + 1) // threads
        for part in range(parts):
            before = part * cost
            if before < stop and before + cost > begin:
                code = one_pass(a, scratch, part, rows, before, begin, stop)
                if code != 0:
                    return code
        return 0

    return attend


attend_f32, attend_f16, attend_bf16 = (_kernel(kind) for kind in ("f32", "f16", "bf16"))


def attend_merge(a, thread, threads):
    """Finish the run that this thread began and later threads went on with."""
    scratch, size, rows = a[SCRATCH] + thread * a[SCRATCH_STRIDE], a[SIZE], load_i64(a[ROWS])
    header = scratch + _HEADER
    part = load_i64(header + _PART)
    if part < 0:
        return 0
    row, end = load_i64(header + _ROW), load_i64(header + _END)
    before, c = load_i64(header + _BEFORE), load_i64(header + _NEXT)
    total, step = parts_of(a) * cost_of_pass(a, rows), chunk_cost(a, row, end)
    _, chunks, _ = chunks_of(a, row, end)
    n = (end - row) * first_head(a, part)[2]
    other = thread + 1
    while c < chunks and other < threads:
        theirs = a[SCRATCH] + other * a[SCRATCH_STRIDE]
        last = first_chunk_from(total * (other + 1) // threads, before, step, chunks)
        for kept in range(last - c):
            join(state(scratch, size, 0), state(theirs, size, 2 + kept), size, n, scratch + _FACTORS)
        c = max(c, last)
        other += 1
    finish(a, state(scratch, size, 0), row, end, part)
    return 0
