"""The launch of rope on CUDA."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CudaKernel
from nanocupy.kernels.rope import checked_table

ROPE = CudaKernel("rope_write", "rope")
WARPS = 4  # of a block; each turns a head


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, positions: DeviceArray, table: DeviceArray,
    rows: Rows, *, heads: int, head_dim: int, traditional: bool = False,
    x_stride: int | None = None, out_stride: int | None = None,
) -> Launch:  # fmt: skip
    """Turn `heads` adjacent heads of each row. See `cpu.launch`."""
    limit, dims = checked_table(table, head_dim)
    strides = (heads * head_dim if s is None else s for s in (x_stride, out_stride))
    shape = (heads, head_dim, dims, limit, traditional)
    numbers = (*map(np.int32, shape), *map(np.int64, strides))
    grid = (int(rows), -(-heads // WARPS), 1)
    return Launch(ROPE, (out, x, positions, table, rows.count, *numbers), grid, 32 * WARPS)
