"""Attention over a paged cache on CUDA: a kernel for decode rows, and one for prefill tiles.

    q, out [rows, heads, head_dim] f32, f16 or bf16
    K, V [blocks][kv_heads][block_size][head_dim] f32, f16 or bf16
    block_tables int32 [sequences, blocks of a sequence], positions int32 [rows]

All heads of a token's block lie one after another, so the tokens that one KV head reads are
`block_size` rows without a gap, and 16 bytes of a row are a load.

**Decode rows** ("flash-decoding", Dao, Haziza, Massa and Sizov 2023). A row with few others beside
it would leave most of a GPU idle, so its tokens are cut into up to `MAX_PARTS` parts, and each
(row, KV head, part) is a block of threads. A block works for all query heads of its KV head
(`MAX_HEADS` at once), so K and V are read once. Its four warps go through the part in steps, each
with a largest score, a sum of weights and a sum of weighted V of its own; warps join in shared
memory, parts in `DecodeScratch`, by the block that comes last and always in ascending order. The
counters that tell which comes last return to zero, so a graph can run again. How many parts there
are depends on the capacity of the launch, how long they are on the row's own tokens. So the same
launch gives a row the same bits whatever else is in the step; launches of another capacity may
round differently.

**Prefill tiles** (FlashAttention-2, Dao 2023). A block of threads takes `TILE` rows of a sequence
for one query head. K and V of `key_tile` tokens at a time go through shared memory, where tensor
cores (wmma 16x16x16, f32 sums) multiply them, and only the largest score and the sum of weights are
kept of a row's past. Weights are rounded to the type of q, and it is the rounded ones that are
summed. A cache of another type is converted on the way. A row sees the tokens up to its own. What
it does not see has weight 0; so a NaN that a sequence wrote as V also reaches its earlier rows of
the same tile, and no other sequence.

**Arithmetic.** Scores, weights and sums are f32; exp(x) is exp2(x * log2(e)). With a softcap c a
score is c * tanh(s / c). With a window only the last tokens are read.

**A bad index** (a position or a sequence outside the tables, a block outside the cache that a row
would read) makes its row NaN; a row outside q writes nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES, FLOATS, float32
from nanocupy.kernels.attention import KVLayout, StepRows, group_of
from nanocupy.kernels.kernel import CudaKernel, MakeLaunches, Shared
from nanocupy.kernels.quantize import Codes

CACHE_DTYPES = tuple(FLOATS)
TILE = 64  # rows of a sequence that attend together; the same in attention_prefill.cu
THREADS = 128
MAX_PARTS = 32
MAX_ROWS = 65535  # decode rows of a launch: what a grid holds along z
MAX_HEADS = 8  # of a group, at once: more do not fit in registers
_PAD = 8  # elements that follow a row in shared memory


class DecodeScratch(NamedTuple):
    """Where the parts of a row meet.

    Attributes:
        parts: f32, partial results.
        arrived: int32, for each (row, slice of heads) how many parts there are already; zeros.
    """

    parts: DeviceArray
    arrived: DeviceArray


class AttentionArgs(NamedTuple):
    """The last arguments of both kernels, typed as the kernels have them."""

    heads: np.int32
    kv_heads: np.int32
    block_size: np.int32
    blocks: np.int32
    max_sequences: np.int32
    max_blocks: np.int32  # of a sequence
    row_limit: np.int32  # rows of q
    window: np.int32
    scale: np.float32
    softcap: np.float32


def prefill_tile(layout: KVLayout) -> int:
    """Tensor cores take f16 or bf16; rows of f32 attend by themselves."""
    return 0 if layout.activations == float32 else TILE


def rounds_rows(layout: KVLayout, group: int) -> bool:
    """Rows are written in the dtype of the activations."""
    return False


def empty_cache(
    layout: KVLayout, device: Device, layers: int
) -> list[tuple[DeviceArray, DeviceArray]]:
    """(K, V) of each layer, zeroed."""
    shape = (layout.blocks, layout.kv_heads, layout.block_size, layout.head_dim)

    def pages() -> DeviceArray:
        return device.empty(shape, layout.dtype)

    return [(pages(), pages()) for _ in range(layers)]


def heads_at_once(group: int) -> tuple[int, int]:
    """(heads a block works for, slices of a group): as few slices as can be, equally wide."""
    slices = -(-group // MAX_HEADS)
    return -(-group // slices), slices


def parts(multiprocessors: int, units: int) -> int:
    """Into how many parts each of `units` is cut, so that two blocks a multiprocessor have work."""
    return min(max(-(-2 * multiprocessors // units), 1), MAX_PARTS)


def scratch(device: Any, capacity: int, heads: int, kv_heads: int, head_dim: int) -> DecodeScratch:
    """Working memory of `attend_decode`, good for any number of rows up to `capacity`."""
    width, slices = heads_at_once(heads // kv_heads)
    per_row = kv_heads * slices
    most = max(n * parts(device.multiprocessors, n * per_row) for n in range(1, capacity + 1))
    floats = most * per_row * width * (head_dim + 2)
    arrived = device.empty((capacity * per_row,), np.int32)
    return DecodeScratch(device.empty((floats,), np.float32), arrived)


def prepare(
    device: Device, layout: KVLayout, out: DeviceArray, q: DeviceArray, k_cache: DeviceArray,
    v_cache: DeviceArray, step: StepRows, shared: Shared, *, heads: int, scale: float,
    window: int = 0, softcap: float = 0.0, q_stride: int | None = None, codes: Codes | None = None,
) -> list[tuple[Rows, MakeLaunches]]:  # fmt: skip
    """The launches of decode rows and of prefill tiles, each with the number that they are for.

    q has no gaps, and rows are not rounded. See `attend_decode` for the other arguments.
    """
    assert step.split is not None and q_stride is None and codes is None
    size = (int(step.split.decode_count), heads, layout.kv_heads, layout.head_dim)
    memory = shared(("attention", size), lambda: scratch(device, *size))
    arrays = (out, q, k_cache, v_cache)
    how: dict[str, Any] = {"heads": heads, "scale": scale, "window": window, "softcap": softcap}

    def decode(rows: Rows) -> list[Launch]:
        return [attend_decode(device, layout, *arrays, step, rows, memory, **how)]

    def prefill(tiles: Rows) -> list[Launch]:
        return [attend_prefill(layout, *arrays, step, tiles, **how)]

    prepared: list[tuple[Rows, MakeLaunches]] = [(step.split.decode_count, decode)]
    if step.split.tile_count:
        prepared.append((step.split.tile_count, prefill))
    return prepared


def attend_decode(
    device: Any, layout: KVLayout, out: DeviceArray, q: DeviceArray, k_cache: DeviceArray,
    v_cache: DeviceArray, step: StepRows, rows: Rows, scratch: DecodeScratch, *, heads: int,
    scale: float, window: int = 0, softcap: float = 0.0,
) -> Launch:  # fmt: skip
    """Attend for the decode rows, each by itself.

    Args:
        out, q: [rows of the step, heads, head_dim] of `layout.activations`; q is turned by rope.
        rows: how many decode rows there are.
        scratch: of the function `scratch`, for the capacity of `rows` or more.
        window: how many of the last tokens count; 0 for all.
        softcap: 0 for none.

    Raises:
        ValueError: more than `MAX_ROWS` rows.
    """
    assert step.split is not None
    if rows > MAX_ROWS:
        raise ValueError(
            f"[paged_attention] {int(rows)} decode rows in a step: at most {MAX_ROWS}; "
            "lower --max-num-batched-tokens"
        )
    width, slices = heads_at_once(group_of(layout, heads))
    units = layout.kv_heads * slices
    count = parts(device.multiprocessors, int(rows) * units)
    args = (
        *(out, q, k_cache, v_cache, step.block_tables, step.positions, step.sequences),
        *(step.split.decode_rows, rows.count, *scratch),
        *_numbers(layout, q, step, heads, scale, window, softcap),
    )
    types = f"{C_TYPES[q.dtype]}, {C_TYPES[k_cache.dtype]}, {layout.head_dim}"
    kernel = CudaKernel("attention_decode", f"attend_decode<{types}, {width}>")
    return Launch(kernel, args, (count, units, int(rows)), THREADS)


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


def attend_prefill(
    layout: KVLayout, out: DeviceArray, q: DeviceArray, k_cache: DeviceArray, v_cache: DeviceArray,
    step: StepRows, tiles: Rows, *, heads: int, scale: float, window: int = 0, softcap: float = 0.0,
) -> Launch:  # fmt: skip
    """Attend for the prefill tiles, each of up to TILE rows of the step at positions that ascend
    one by one. The activations must be f16 or bf16.

    Args:
        out, q, window, softcap: as for `attend_decode`.
        tiles: how many tiles there are.
    """
    assert step.split is not None
    group_of(layout, heads)
    if q.dtype == float32:
        raise TypeError("[paged_attention] tiles of float32 rows: tensor cores take f16 or bf16")
    keys = key_tile(layout.head_dim, k_cache.dtype.itemsize)
    args = (
        *(out, q, k_cache, v_cache, step.block_tables, step.positions),
        *(step.split.prefill_tiles, tiles.count),
        *_numbers(layout, q, step, heads, scale, window, softcap),
    )
    types = f"{C_TYPES[q.dtype]}, {C_TYPES[k_cache.dtype]}, {layout.head_dim}"
    kernel = CudaKernel("attention_prefill", f"attend_prefill<{types}, {keys}>")
    shared = prefill_shared(layout.head_dim, keys)
    return Launch(kernel, args, (int(tiles), heads, 1), THREADS, shared)


def _numbers(
    layout: KVLayout, q: DeviceArray, step: StepRows, heads: int, scale: float, window: int,
    softcap: float,
) -> AttentionArgs:  # fmt: skip
    return AttentionArgs(
        heads=np.int32(heads),
        kv_heads=np.int32(layout.kv_heads),
        block_size=np.int32(layout.block_size),
        blocks=np.int32(layout.blocks),
        max_sequences=np.int32(step.block_tables.shape[0]),
        max_blocks=np.int32(step.block_tables.shape[1]),
        row_limit=np.int32(q.size // (heads * layout.head_dim)),
        window=np.int32(window),
        scale=np.float32(scale),
        softcap=np.float32(softcap),
    )
