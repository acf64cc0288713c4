"""The launch of cast on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import C_TYPES, CudaKernel

DTYPES = tuple(C_TYPES)
"""What rows can be rounded to."""


def launch(
    device: Any, out: Any, x: Any, rows: Rows, width: int, *, x_stride: int | None = None
) -> Launch:
    """out = x on the first `rows` rows, in out's dtype. See `cpu.launch`."""
    kernel = CudaKernel("elementwise", f"cast<{C_TYPES[out.dtype]}>")
    apart = np.int64(width if x_stride is None else x_stride)
    args = (out, x, rows.count, np.int32(width), apart)
    return cuda_grid.elementwise(kernel, args, rows, width)
