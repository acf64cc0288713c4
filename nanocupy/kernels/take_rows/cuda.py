"""The launch of take_rows on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import C_TYPES, CudaKernel


def launch(device: Any, out: Any, x: Any, index: Any, rows: Rows, *, codes: None = None) -> Launch:
    """out[i] = x[index[i]] for i below the number of `rows`, in the dtype of out."""
    kernel = CudaKernel("elementwise", f"take_rows<{C_TYPES[x.dtype]}, {C_TYPES[out.dtype]}>")
    args = (out, x, index, rows.count, *map(np.int32, x.shape))
    return cuda_grid.elementwise(kernel, args, rows, x.shape[1])
