"""The working memory of attention on a CPU. A thread's, in this order:

    queries    q * scale, PITCH bytes a query
    scores     scores of one unit, then probabilities, PITCH bytes a query
    keys, values   addresses of the chunk's 16 tiles, and of some to read ahead
    factors    two vectors for the join
    cursor     of `cpu_units`
    segments   which queries add which values: (queries, first query, first token, last token)
    states     that of the run, that of the unit, then those kept apart

A state is m [16], l [16], sums [MAX_QUERIES][head_dim], all f32. l is 0 where a query has no token.
"""

from __future__ import annotations

from typing import NamedTuple

CHUNK = 256  # tokens that are reduced before they join the rest
TILES = CHUNK // 16
MAX_QUERIES = 12  # of a unit
PITCH = 1024  # bytes from query to query: 256 f32 of q, or of probabilities


class Cursor(NamedTuple):
    """A thread's place in its share of the work: int64 each. Costs count from the step's first
    unit."""

    begin: int  # the thread's share
    stop: int
    pass_cost: int  # of all runs of one part
    part: int  # the run: its part, its rows, where its cost begins and ends
    row: int
    end: int
    before: int
    after: int
    first_chunk: int  # of the run
    chunks: int  # of the run
    first: int  # of those, the thread's own, and the one in hand
    last: int
    at: int
    kv_head: int  # the part: KV head, first query head, query heads
    head: int
    together: int
    group: int  # query heads of a KV head
    shares: int  # parts of a group
    share: int  # query heads of a part


CURSOR_BYTES = 192
SCORES = MAX_QUERIES * PITCH
KEYS = SCORES + MAX_QUERIES * PITCH
VALUES = KEYS + 8 * (TILES + 8)
FACTORS = VALUES + 8 * (TILES + 8)
CURSOR = FACTORS + 128
SEGMENTS = CURSOR + CURSOR_BYTES
STATES = SEGMENTS + 32 * 128
L, SUMS = 64, 128  # where the l and the sums of a state begin


def thread_bytes(head_dim: int, max_context: int) -> int:
    """Bytes of a thread's working memory, for sequences of up to `max_context` tokens."""
    states = 2 + -(-max_context // CHUNK)
    return STATES + states * (SUMS + 4 * MAX_QUERIES * head_dim)
