"""take_rows: out[i] = x[index[i]], the rows of a step whose logits are wanted.

x [rows, width] f32, index int32 [count], out [count, width] f32, bf16 or codes (see
`kernels.quantize`), or both int32; on CUDA x and out may each be f32, f16 or bf16. An index outside
x is an error: on the CPU the kernel fails with code 1, on CUDA its row is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import quantize
from nanocupy.kernels.elementwise import CUDA_BLOCK, cuda_grid
from nanocupy.kernels.kernel import C_TYPES, CpuKernel, CudaKernel

CPU = CpuKernel("take_rows:take_rows")


def reference(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """x f32 [rows, width], index int32 [count] -> f32 [count, width]."""
    return x[index]


def launch(
    device: Any,
    out: Any,
    x: Any,
    index: Any,
    rows: Rows,
    *,
    codes: quantize.Codes | None = None,
) -> Launch:
    """out[i] = x[index[i]] for i below the number of `rows`.

    Args:
        codes: how rows are rounded, out being uint8. Default: to the dtype of out.
    """
    limit, width = x.shape
    if device.kind == "cuda":
        types = f"{C_TYPES[x.dtype]}, {C_TYPES[out.dtype]}"
        kernel = CudaKernel("elementwise", f"take_rows<{types}>")
        args = (out, x, index, rows.count, np.int32(limit), np.int32(width))
        return Launch(kernel, args, cuda_grid(rows, width), CUDA_BLOCK)
    words = out.view(np.float32) if out.dtype == np.int32 else out  # as they are
    finish = quantize.rounding(words, codes, width)
    return Launch(CPU, (out, x, index, rows.count, limit, width, *finish))
