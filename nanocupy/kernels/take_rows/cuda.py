"""The launch of take_rows on CUDA."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import CudaKernel


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, index: DeviceArray, rows: Rows, *,
    codes: None = None,
) -> Launch:  # fmt: skip
    """out[i] = x[index[i]] for i below the number of `rows`, in the dtype of out."""
    kernel = CudaKernel("elementwise", f"take_rows<{C_TYPES[x.dtype]}, {C_TYPES[out.dtype]}>")
    args = (out, x, index, rows.count, *map(np.int32, x.shape))
    return cuda_grid.elementwise(kernel, args, rows, x.shape[1])
