"""take_rows: out[i] = x[index[i]], the rows of a step whose logits are wanted.

x [rows, width] f32 (on the CPU any 32 bits), index int32 [count], out [count, width] as x, or bf16;
on CUDA x and out may each be f16 or bf16. An index outside x is an error: on the CPU the kernel
fails with code 1, on CUDA its row is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch, Rows
from nanocupy.kernels.base import C_TYPES, CpuKernel, CudaKernel
from nanocupy.kernels.elementwise import CUDA_BLOCK, cuda_grid

CPU = {4: CpuKernel("take_rows:take_rows"), 2: CpuKernel("take_rows:take_rows_bf16")}


def reference(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """x f32 [rows, width], index int32 [count] -> f32 [count, width]."""
    return x[index]


def launch(device: Any, out: Any, x: Any, index: Any, rows: Rows) -> Launch:
    """out[i] = x[index[i]] for i below the number of `rows`."""
    limit, width = x.shape
    if device.kind == "cuda":
        types = f"{C_TYPES[x.dtype]}, {C_TYPES[out.dtype]}"
        kernel = CudaKernel("elementwise", f"take_rows<{types}>")
        args = (out, x, index, rows.count, np.int32(limit), np.int32(width))
        return Launch(kernel, args, cuda_grid(rows, width), CUDA_BLOCK)
    return Launch(CPU[out.dtype.itemsize], (out, x, index, rows.count, limit, width))
