"""cast: f32 rows rounded to another float dtype, to the nearest, ties to even.

x [rows, width] f32 inside a wider buffer, out [rows, width] bf16; on CUDA also f32 or f16
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import quantize
from nanocupy.kernels.elementwise import CUDA_BLOCK, cuda_grid
from nanocupy.kernels.kernel import C_TYPES, CudaKernel


def reference(x: np.ndarray, dtype: Any) -> np.ndarray:
    """x f32 -> x of the dtype."""
    return x.astype(dtype)


def launch(
    device: Any, out: Any, x: Any, rows: Rows, width: int, *, x_stride: int | None = None
) -> Launch:
    """out = x on the first `rows` rows, in out's dtype; x's are `x_stride` elements apart."""
    apart = width if x_stride is None else x_stride
    if device.kind == "cpu":
        return quantize.launch_cast(x, out, rows, width, 4 * apart)
    stride = np.int64(apart)
    kernel = CudaKernel("elementwise", f"cast<{C_TYPES[out.dtype]}>")
    args = (out, x, rows.count, np.int32(width), stride)
    return Launch(kernel, args, cuda_grid(rows, width), CUDA_BLOCK)
