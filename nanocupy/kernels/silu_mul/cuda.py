"""The launch of silu_mul and gelu_mul on CUDA."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import CudaKernel


def launch(
    device: Device, out: DeviceArray, gate: DeviceArray, up: DeviceArray, rows: Rows, width: int, *,
    gate_stride: int | None = None, up_stride: int | None = None, codes: None = None,
    activation: str = "silu",
) -> Launch:  # fmt: skip
    """out = activation(gate) * up, in the dtype of out. See `cpu.launch`."""
    strides = (np.int64(width if s is None else s) for s in (gate_stride, up_stride))
    args = (out, gate, up, rows.count, np.int32(width), *strides)
    kernel = CudaKernel("elementwise", f"{activation}_mul<{C_TYPES[out.dtype]}>")
    return cuda_grid.elementwise(kernel, args, rows, width)
