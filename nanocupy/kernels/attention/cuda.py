"""Attention over a paged cache on CUDA: `launch_decode` for rows by themselves, `launch_prefill`
for neighbours in a sequence. The contract and the reference are those of `paged_attention`.

    q, out [rows, heads, head_dim] f32, f16 or bf16
    K, V [blocks][kv_heads][block_size][head_dim] f32, f16 or bf16
    block_tables int32 [sequences, blocks of a sequence], positions int32 [rows]

All heads of a token's block lie one after another, so the tokens that one KV head reads are
`block_size` rows without a gap, and 16 bytes of a row are a load.

**Rows by themselves** ("flash-decoding", Dao, Haziza, Massa and Sizov 2023). A row with few others
beside it would leave most of a GPU idle, so its tokens are cut into up to `MAX_PARTS` parts, and
each (row, KV head, part) is a block of threads. A block works for all query heads of its KV head
(`MAX_HEADS` at once), so K and V are read once. Its four warps go through the part in steps, each
with a largest score, a sum of weights and a sum of weighted V of its own; warps join in shared
memory, parts in `Scratch`, by the block that comes last and always in ascending order. The counters
that tell which comes last return to zero, so a graph can run again. How many parts there are
depends on the capacity of the launch, how long they are on the row's own tokens. So the same launch
gives a row the same bits whatever else is in the step; launches of another capacity may round
differently.

**Neighbours** (FlashAttention-2, Dao 2023). A block of threads takes `TILE` rows of a sequence for
one query head. K and V of `key_tile` tokens at a time go through shared memory, where tensor cores
(wmma 16x16x16, f32 sums) multiply them, and only the largest score and the sum of weights are kept
of a row's past. Weights are rounded to the type of q, and it is the rounded ones that are summed. A
cache of another type is converted on the way. A row sees the tokens up to its own. What it does not
see has weight 0; so a NaN that a sequence wrote as V also reaches its earlier rows of the same
tile, and no other sequence.

**Arithmetic.** Scores, weights and sums are f32; exp(x) is exp2(x * log2(e)). With a softcap c a
score is c * tanh(s / c). With a window only the last tokens are read.

**A bad index** (a position or a sequence outside the tables, a block outside the cache that a row
would read) makes its row NaN; a row outside q writes nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.dtypes import C_TYPES
from nanocupy.kernels.attention import KVLayout
from nanocupy.kernels.kernel import CudaKernel

TILE = 64  # rows of a sequence that attend together; the same in attention_prefill.cu
THREADS = 128
MAX_PARTS = 32
MAX_ROWS = 65535  # of a launch for rows by themselves: what a grid holds along z
MAX_HEADS = 8  # of a group, at once: more do not fit in registers
_PAD = 8  # elements that follow a row in shared memory


class Scratch(NamedTuple):
    """Where the parts of a row meet.

    Attributes:
        parts: f32, partial results.
        arrived: int32, for each (row, slice of heads) how many parts there are already; zeros.
    """

    parts: Any
    arrived: Any


def heads_at_once(group: int) -> tuple[int, int]:
    """(heads a block works for, slices of a group): as few slices as can be, equally wide."""
    slices = -(-group // MAX_HEADS)
    return -(-group // slices), slices


def parts(multiprocessors: int, units: int) -> int:
    """Into how many parts each of `units` is cut, so that two blocks a multiprocessor have work."""
    return min(max(-(-2 * multiprocessors // units), 1), MAX_PARTS)


def scratch(device: Any, capacity: int, heads: int, kv_heads: int, head_dim: int) -> Scratch:
    """Working memory for `launch_decode`, good for any number of rows up to `capacity`."""
    width, slices = heads_at_once(heads // kv_heads)
    per_row = kv_heads * slices
    most = max(n * parts(device.multiprocessors, n * per_row) for n in range(1, capacity + 1))
    floats = most * per_row * width * (head_dim + 2)
    arrived = device.empty((capacity * per_row,), np.int32)
    return Scratch(device.empty((floats,), np.float32), arrived)


def launch_decode(
    device: Any,
    layout: KVLayout,
    out: Any,
    q: Any,
    k_cache: Any,
    v_cache: Any,
    block_tables: Any,
    positions: Any,
    sequences: Any,
    decode_rows: Any,
    rows: Rows,
    scratch: Scratch,
    *,
    heads: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
) -> Launch:
    """Attend for the decode rows, each by itself.

    Args:
        out, q: [rows of the step, heads, head_dim] of `layout.activations`; q is turned by rope.
        positions, sequences: int32 [rows of the step].
        decode_rows: int32 [capacity], rows of the step.
        rows: the number of decode rows in use.
        scratch: for the capacity of `rows` or more.
        window: how many of the last tokens count; 0 for all.
        softcap: 0 for none.

    Raises:
        ValueError: more than `MAX_ROWS` rows.
    """
    if rows > MAX_ROWS:
        raise ValueError(
            f"[paged_attention] {int(rows)} rows by themselves in a step: at most {MAX_ROWS}; "
            "lower --max-num-batched-tokens"
        )
    width, slices = heads_at_once(_group(layout, heads))
    units = layout.kv_heads * slices
    count = parts(device.multiprocessors, int(rows) * units)
    arrays = (out, q, k_cache, v_cache, block_tables, positions, sequences, decode_rows, rows.count)
    numbers = _numbers(layout, q, block_tables, heads, scale, window, softcap)
    types = f"{C_TYPES[q.dtype]}, {C_TYPES[k_cache.dtype]}, {layout.head_dim}"
    kernel = CudaKernel("attention_decode", f"attend_decode<{types}, {width}>")
    return Launch(kernel, (*arrays, *scratch, *numbers), (count, units, int(rows)), THREADS)


def key_tile(head_dim: int, itemsize: int) -> int:
    """Tokens of K or V that go through shared memory at once: as many as registers carry there.

    Args:
        itemsize: of the cache.
    """
    carried = 16384 if head_dim <= 192 else 8192  # bytes; sums of a larger head need more registers
    return min(max(carried // (head_dim * itemsize * 16), 1) * 16, 64)


def prefill_shared(head_dim: int, keys: int) -> int:
    """Bytes for q, K and V of 16-bit elements, and f32 scores."""
    return 2 * (TILE + 2 * keys) * (head_dim + _PAD) + 4 * TILE * (keys + _PAD // 2)


def launch_prefill(
    device: Any,
    layout: KVLayout,
    out: Any,
    q: Any,
    k_cache: Any,
    v_cache: Any,
    block_tables: Any,
    positions: Any,
    sequences: Any,
    tiles: Any,
    rows: Rows,
    *,
    heads: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
) -> Launch:
    """Attend for tiles of neighbours. The activations must be f16 or bf16.

    Args:
        out, q, positions, window, softcap: as for `launch_decode`.
        sequences: not read; a tile says which sequence it is of.
        tiles: int32 [capacity, 4], each (first row, up to TILE rows, sequence, 0): rows of the step
            at positions that ascend one by one.
        rows: how many of `tiles` are in use.
    """
    _group(layout, heads)
    if q.dtype == np.float32:
        raise TypeError("[paged_attention] tiles of float32 rows: tensor cores take f16 or bf16")
    keys = key_tile(layout.head_dim, k_cache.dtype.itemsize)
    arrays = (out, q, k_cache, v_cache, block_tables, positions, tiles, rows.count)
    numbers = _numbers(layout, q, block_tables, heads, scale, window, softcap)
    types = f"{C_TYPES[q.dtype]}, {C_TYPES[k_cache.dtype]}, {layout.head_dim}"
    kernel = CudaKernel("attention_prefill", f"attend_prefill<{types}, {keys}>")
    shared = prefill_shared(layout.head_dim, keys)
    return Launch(kernel, (*arrays, *numbers), (int(rows), heads, 1), THREADS, shared)


def _group(layout: KVLayout, heads: int) -> int:
    """Query heads that share a KV head."""
    if heads % layout.kv_heads:
        raise ValueError(
            f"[paged_attention] {heads} heads on {layout.kv_heads} KV heads: expected a multiple"
        )
    return heads // layout.kv_heads


def _numbers(
    layout: KVLayout,
    q: Any,
    block_tables: Any,
    heads: int,
    scale: float,
    window: int,
    softcap: float,
) -> tuple[Any, ...]:
    """The arguments that both kernels end with."""
    row_limit = q.size // (heads * layout.head_dim)
    shape = (heads, layout.kv_heads, layout.block_size, layout.blocks, *block_tables.shape)
    return (*map(np.int32, (*shape, row_limit, window)), np.float32(scale), np.float32(softcap))
