"""rope_write: turn q and k, and write k and v to the cache, in one kernel.

    q [rows, heads, head_dim], k, v [rows, kv_heads, head_dim] f32 inside wider buffers
    q_out [rows, heads, head_dim] f32, on CUDA also f16 or bf16; K and V in the cache's dtype (see
    `kernels.attention`)

Row r goes to slot block * block_size + place; slot -1 goes nowhere. A position outside the table,
or a slot outside the cache, is an error: on the CPU the kernel fails with code 1 or 2; on CUDA it
writes nothing to the cache and makes q's row NaN, which ends its own request and no other.
"""

from __future__ import annotations

import numpy as np

from nanocupy.kernels import rope
from nanocupy.kernels.attention import KVLayout


def reference(
    layout: KVLayout,
    cache: tuple[np.ndarray, np.ndarray],
    inputs: tuple[np.ndarray, np.ndarray, np.ndarray],
    positions: np.ndarray,
    slots: np.ndarray,
    table: np.ndarray | None,
    traditional: bool = False,
) -> np.ndarray:
    """Write K and V into `cache`, arrays of CUDA's `layout`; return q, turned, in
    `layout.activations`.

    Args:
        inputs: q, k, v f32 [rows, heads or kv_heads, head_dim].
        table: f32 [positions, dims]; None turns nothing.
    """
    q, k, v = inputs
    bad = (slots < -1) | (slots >= layout.blocks * layout.block_size)
    if table is not None:
        bad |= (positions < 0) | (positions >= len(table))
        at = np.where(bad, 0, positions)
        q, k = (rope.reference(x, at, table, traditional) for x in (q, k))
    rows = np.flatnonzero(~bad & (slots >= 0))
    block, place = np.divmod(slots[rows], layout.block_size)
    for pages, new in zip(cache, (k, v), strict=True):
        pages[block, :, place] = new[rows].astype(pages.dtype)
    return np.where(bad[:, None, None], np.float32(np.nan), q).astype(layout.activations)


def row_strides(
    layout: KVLayout, heads: int, q: int | None, k: int | None, v: int | None
) -> list[int]:
    """The elements from row to row of q, k and v; where one is None, its rows have no gaps."""
    counts = (heads, layout.kv_heads, layout.kv_heads)
    given = zip((q, k, v), counts, strict=True)
    return [count * layout.head_dim if stride is None else stride for stride, count in given]
