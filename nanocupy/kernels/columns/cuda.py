"""The launch of columns on CUDA."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CudaKernel

KERNEL = CudaKernel("columns", "move_columns")
_BLOCK = 128


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, source: DeviceArray, to: DeviceArray,
    rows: Rows, *,
    x_stride: int, out_stride: int,
) -> Launch:  # fmt: skip
    """Columns `source` of x to places `to` of out. See `cpu.launch`."""
    assert out.dtype == x.dtype and out.dtype.itemsize == 4
    count = source.shape[0]
    numbers = (np.int32(count), np.int64(x_stride), np.int64(out_stride))
    args = (out, x, source, to, rows.count, *numbers)
    return Launch(KERNEL, args, (int(rows), -(-count // _BLOCK), 1), _BLOCK)
