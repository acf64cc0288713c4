"""rope_write: turn q and k, round them, and put k and v into the cache: one kernel, on CUDA only.

    q [rows, heads, head_dim], k, v [rows, kv_heads, head_dim] f32 inside wider buffers
    q_out [rows, heads, head_dim] in its own dtype; K and V in the cache's (see `paged_attention`)

Row r goes to slot block * block_size + place; slot -1 goes nowhere. What is wrong with a row ends
its own request and no other: a position outside the table, or a slot outside the cache, writes
nothing to the cache and makes q's row NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch, Rows
from nanocupy.kernels import rope
from nanocupy.kernels.base import C_TYPES, CudaKernel
from nanocupy.kernels.paged_attention import KVLayout


def reference(
    layout: KVLayout,
    cache: tuple[np.ndarray, np.ndarray],
    inputs: tuple[np.ndarray, np.ndarray, np.ndarray],
    positions: np.ndarray,
    slots: np.ndarray,
    table: np.ndarray | None,
    traditional: bool = False,
) -> np.ndarray:
    """Writes K and V into `cache`, arrays of `layout.shape`; q, turned, in `layout.activations`.

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


def launch(
    device: Any,
    layout: KVLayout,
    q_out: Any,
    k_cache: Any,
    v_cache: Any,
    q: Any,
    k: Any,
    v: Any,
    positions: Any,
    slots: Any,
    table: Any,
    rows: Rows,
    *,
    heads: int,
    traditional: bool = False,
    q_stride: int | None = None,
    k_stride: int | None = None,
    v_stride: int | None = None,
) -> Launch:
    """Turn q and k of each row, and write K and V.

    Args:
        positions, slots: int32 [rows].
        table: as for `rope`; None if q and k do not turn, or have turned already.
        q_stride, k_stride, v_stride: elements from row to row. Default: no gaps.
    """
    assert device.kind == "cuda"
    size, kv_heads = layout.head_dim, layout.kv_heads
    limit, dims = (0, 0) if table is None else rope.checked_table(table, size)
    widths = (heads * size, kv_heads * size, kv_heads * size)
    strides = zip((q_stride, k_stride, v_stride), widths, strict=True)
    kernel = f"rope_write<{C_TYPES[q_out.dtype]}, {C_TYPES[k_cache.dtype]}>"
    args = (
        *(q_out, k_cache, v_cache, q, k, v, positions, slots),
        positions if table is None else table,
        rows.count,
        *map(np.int32, (heads, kv_heads, size, dims, limit, traditional)),
        *(np.int64(width if stride is None else stride) for stride, width in strides),
        *map(np.int32, (layout.block_size, layout.blocks)),
    )
    grid = (int(rows), -(-(heads + 2 * kv_heads) // rope.CUDA_WARPS), 1)
    return Launch(CudaKernel("rope_write", kernel), args, grid, 32 * rope.CUDA_WARPS)
