"""The launch of silu_mul and gelu_mul on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import C_TYPES, CudaKernel


def launch(
    device: Any,
    out: Any,
    gate: Any,
    up: Any,
    rows: Rows,
    width: int,
    *,
    gate_stride: int | None = None,
    up_stride: int | None = None,
    codes: None = None,
    activation: str = "silu",
) -> Launch:
    """out = activation(gate) * up, in the dtype of out. See `cpu.launch`."""
    strides = (np.int64(width if s is None else s) for s in (gate_stride, up_stride))
    args = (out, gate, up, rows.count, np.int32(width), *strides)
    kernel = CudaKernel("elementwise", f"{activation}_mul<{C_TYPES[out.dtype]}>")
    return cuda_grid.elementwise(kernel, args, rows, width)
