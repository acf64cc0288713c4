"""The launch of cast on CUDA."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES, FLOATS
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import CudaKernel

DTYPES = tuple(FLOATS)
"""What rows can be rounded to."""


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, width: int, *,
    x_stride: int | None = None,
) -> Launch:  # fmt: skip
    """out = x on the first `rows` rows, in out's dtype. See `cpu.launch`."""
    kernel = CudaKernel("elementwise", f"cast<{C_TYPES[out.dtype]}>")
    apart = np.int64(width if x_stride is None else x_stride)
    args = (out, x, rows.count, np.int32(width), apart)
    return cuda_grid.elementwise(kernel, args, rows, width)
