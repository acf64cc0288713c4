"""Who does what in attention: runs of rows, chunks of tokens, and each thread's share of both.

A *part* is a KV head with as many query heads of its group as fit a register tile. A *run* is a
few rows of one sequence that read K and V together, for one part. A *unit* is a run against one
chunk of 256 tokens. Threads take equal shares of the units' cost; a run that crosses from one
thread to the next is left unfinished, and `attend_merge` completes it.

A thread's place in this is a *cursor*, in its scratch; `next_unit` moves it on.
(An i8t(0) that looks idle keeps Numba from compiling a function for the literal 0, too.)
"""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i32, load_i64, store_i64
from nanocupy.device.cpu.simd import fn, i8t
from nanocupy.kernels.attention.cpu import AttentionArgs
from nanocupy.kernels.attention.cpu_scratch import CHUNK, CURSOR_BYTES, TILES, Cursor
from nanocupy.kernels.attention.cpu_tiles import MOST
from nanocupy.kernels.kernel import indices

A = indices(AttentionArgs)
C = Cursor(*range(0, 8 * len(Cursor._fields), 8))  # where its fields lie, in bytes


# ---- parts and runs ----------------------------------------------------------------------------


@fn
def divide_group(a, cursor):
    """The group of a KV head, in even shares that fit a register tile."""
    group = a[A.heads] // a[A.kv_heads]
    shares = (group + MOST - 1) // MOST
    heads = (group + shares - 1) // shares
    store_i64(cursor + C.group, group)
    store_i64(cursor + C.shares, (group + heads - 1) // heads)
    store_i64(cursor + C.share, heads)


@fn
def run_end(a, cursor, row, rows):
    """End of the run that starts at a row: rows of one sequence, within an aligned group."""
    most = MOST // load_i64(cursor + C.share)
    end = min(rows, (row // most + 1) * most)
    seq = load_i32(a[A.sequences] + 4 * row)
    row += 1
    while row < end and load_i32(a[A.sequences] + 4 * row) == seq:
        row += 1
    return row


@fn
def tokens(a, row):
    """Tokens that a row attends to: first, and one past the last."""
    last = load_i32(a[A.positions] + 4 * row) + 1
    return (max(0, last - a[A.window]) if a[A.window] != 0 else 0), last


@fn
def tokens_in_chunk(a, row, start):
    """The same within the chunk at `start`, counted from there; none if first >= last."""
    first, last = tokens(a, row)
    return max(first - start, 0), min(last - start, CHUNK)


@fn
def tokens_of_run(a, row, end):
    """From the first to the last token that any of the rows attends to."""
    first, last = tokens(a, row)
    for r in range(row + 1, end):
        f, t = tokens(a, r)
        first, last = min(first, f), max(last, t)
    return first, last


# ---- costs ---------------------------------------------------------------------------------------


@fn
def tile_cost(cursor, row, end):
    """What 16 tokens cost a run: loads for all its queries, arithmetic for each."""
    return (end - row) * load_i64(cursor + C.share) + 2


@fn
def chunks_of(a, cursor, row, end):
    """(first chunk, chunks, cost) of a run."""
    first, last = tokens_of_run(a, row, end)
    chunk = first // CHUNK
    tiles = (last + 15) // 16 - chunk * TILES
    return chunk, (tiles + TILES - 1) // TILES, tiles * tile_cost(cursor, row, end)


@fn
def cost_of_pass(a, cursor, rows):
    """The cost of all runs of one part."""
    total, row = i8t(0), i8t(0)
    while row < rows:
        end = run_end(a, cursor, row, rows)
        total += chunks_of(a, cursor, row, end)[2]
        row = end
    return total


@fn
def chunk_at(cost, before, per_chunk, chunks):
    """The first of a run's chunks that begins at a cost or later; `chunks` if none does."""
    return min(max((cost - before + per_chunk - 1) // per_chunk, 0), chunks)


# ---- the cursor --------------------------------------------------------------------------------


@fn
def start(a, cursor, rows, thread, threads):
    """Put the cursor before the thread's first unit."""
    for field in range(0, CURSOR_BYTES, 8):
        store_i64(cursor + field, 0)
    divide_group(a, cursor)
    per_pass = cost_of_pass(a, cursor, rows)
    total = per_pass * a[A.kv_heads] * load_i64(cursor + C.shares)
    store_i64(cursor + C.begin, total * thread // threads)
    store_i64(cursor + C.stop, total * (thread + 1) // threads)
    store_i64(cursor + C.pass_cost, per_pass)


@fn
def next_unit(a, cursor, rows):
    """Move on to the thread's next unit; False when there is none."""
    at = load_i64(cursor + C.at) + 1
    if at < load_i64(cursor + C.last):
        store_i64(cursor + C.at, at)
        return True
    return next_run(a, cursor, rows)


@fn
def next_run(a, cursor, rows):
    """Move on to the next run of which the thread has chunks."""
    begin, stop = load_i64(cursor + C.begin), load_i64(cursor + C.stop)
    per_pass = load_i64(cursor + C.pass_cost)
    part, row, before = (
        load_i64(cursor + C.part),
        load_i64(cursor + C.end),
        load_i64(cursor + C.after),
    )
    while before < stop:
        if row >= rows:
            part, row = part + 1, i8t(0)
        if row == 0 and before + per_pass <= begin:
            part, before = part + 1, before + per_pass
            continue
        end = run_end(a, cursor, row, rows)
        chunk, chunks, cost = chunks_of(a, cursor, row, end)
        per_chunk = TILES * tile_cost(cursor, row, end)
        first = chunk_at(begin, before, per_chunk, chunks)
        last = chunk_at(stop, before, per_chunk, chunks)
        if first < last:
            store_i64(cursor + C.part, part)
            store_i64(cursor + C.row, row)
            store_i64(cursor + C.end, end)
            store_i64(cursor + C.before, before)
            store_i64(cursor + C.after, before + cost)
            store_i64(cursor + C.first_chunk, chunk)
            store_i64(cursor + C.chunks, chunks)
            store_i64(cursor + C.first, first)
            store_i64(cursor + C.last, last)
            store_i64(cursor + C.at, first)
            enter_part(cursor, part)
            return True
        before += cost
        row = end
    return False


@fn
def enter_part(cursor, part):
    group, heads = load_i64(cursor + C.group), load_i64(cursor + C.share)
    shares = load_i64(cursor + C.shares)
    kv_head = part // shares
    head = heads * (part - kv_head * shares)
    store_i64(cursor + C.kv_head, kv_head)
    store_i64(cursor + C.head, kv_head * group + head)
    store_i64(cursor + C.together, min(heads, group - head))
