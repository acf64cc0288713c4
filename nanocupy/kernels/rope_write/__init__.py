"""rope_write: turn q and k, and put k and v into the cache: one kernel.

    q [rows, heads, head_dim], k, v [rows, kv_heads, head_dim] f32 inside wider buffers
    q_out [rows, heads, head_dim] f32, on CUDA also f16 or bf16; K and V in the cache's dtype (see
    `paged_attention`)

Row r goes to slot block * block_size + place; slot -1 goes nowhere. A position outside the table,
or a slot outside the cache, is an error: on the CPU the kernel fails with code 1 or 2; on CUDA it
writes nothing to the cache and makes q's row NaN, which ends its own request and no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.dtypes import C_TYPES
from nanocupy.kernels import rope
from nanocupy.kernels.attention import KINDS, KVLayout
from nanocupy.kernels.kernel import CpuKernel, CudaKernel
from nanocupy.kernels.rope import cuda as rope_cuda

CPU = {kind: CpuKernel(f"rope_write:rope_write_{kind}") for kind in KINDS.values()}


def reference(
    layout: KVLayout,
    cache: tuple[np.ndarray, np.ndarray],
    inputs: tuple[np.ndarray, np.ndarray, np.ndarray],
    positions: np.ndarray,
    slots: np.ndarray,
    table: np.ndarray | None,
    traditional: bool = False,
) -> np.ndarray:
    """Writes K and V into `cache`, arrays of CUDA's `layout`; q, turned, in `layout.activations`.

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
        q_out: on the CPU None where nothing turns: q then stays where it is.
        positions, slots: int32 [rows].
        table: as for `rope`; None if q and k do not turn, or have turned already.
        q_stride, k_stride, v_stride: elements from row to row. Default: no gaps.
    """
    size, kv_heads = layout.head_dim, layout.kv_heads
    limit, dims = (0, 0) if table is None else rope.checked_table(table, size)
    widths = (heads * size, kv_heads * size, kv_heads * size)
    given = zip((q_stride, k_stride, v_stride), widths, strict=True)
    strides = [width if stride is None else stride for stride, width in given]
    if device.kind == "cpu":
        turning = (0, 0, 0, 0) if table is None else (heads, dims, limit, int(traditional))
        first = k_cache[0], v_cache[0]
        arrays = (q_out if turning[0] else 0, *first, q, k, v, positions, slots)
        shape = (kv_heads, size, *turning, layout.block_size, layout.blocks)
        scratch = device.empty((device.threads, 4 * size), np.uint8)
        place = (*(4 * stride for stride in strides), scratch, 4 * size, k_cache.strides[0])
        args = (*arrays, 0 if table is None else table, rows.count, *shape, *place)
        return Launch(CPU[layout.kind], args)
    kernel = f"rope_write<{C_TYPES[q_out.dtype]}, {C_TYPES[k_cache.dtype]}>"
    args = (
        *(q_out, k_cache, v_cache, q, k, v, positions, slots),
        positions if table is None else table,
        rows.count,
        *map(np.int32, (heads, kv_heads, size, dims, limit, traditional)),
        *map(np.int64, strides),
        *map(np.int32, (layout.block_size, layout.blocks)),
    )
    grid = (int(rows), -(-(heads + 2 * kv_heads) // rope_cuda.WARPS), 1)
    return Launch(CudaKernel("rope_write", kernel), args, grid, 32 * rope_cuda.WARPS)
