"""The launch of rope_write on CUDA."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES
from nanocupy.kernels.attention import KVLayout
from nanocupy.kernels.kernel import CudaKernel
from nanocupy.kernels.rope import checked_table
from nanocupy.kernels.rope.cuda import WARPS
from nanocupy.kernels.rope_write import row_strides

ALWAYS_WRITES_Q = True  # attention reads q in the dtype of the activations


def launch(
    device: Device, layout: KVLayout, q_out: DeviceArray | None, k_cache: DeviceArray,
    v_cache: DeviceArray, q: DeviceArray, k: DeviceArray, v: DeviceArray, positions: DeviceArray,
    slots: DeviceArray, table: DeviceArray | None, rows: Rows, *, heads: int,
    traditional: bool = False, q_stride: int | None = None, k_stride: int | None = None,
    v_stride: int | None = None,
) -> Launch:  # fmt: skip
    """Turn q and k of each row, and write K and V; q goes to q_out. See `cpu.launch`."""
    assert q_out is not None
    size, kv_heads = layout.head_dim, layout.kv_heads
    limit, dims = (0, 0) if table is None else checked_table(table, size)
    strides = row_strides(layout, heads, q_stride, k_stride, v_stride)
    args = (
        *(q_out, k_cache, v_cache, q, k, v, positions, slots),
        positions if table is None else table,
        rows.count,
        *map(np.int32, (heads, kv_heads, size, dims, limit, traditional)),
        *map(np.int64, strides),
        *map(np.int32, (layout.block_size, layout.blocks)),
    )
    kernel = CudaKernel(
        "rope_write", f"rope_write<{C_TYPES[q_out.dtype]}, {C_TYPES[k_cache.dtype]}>"
    )
    grid = (int(rows), -(-(heads + 2 * kv_heads) // WARPS), 1)
    return Launch(kernel, args, grid, 32 * WARPS)
