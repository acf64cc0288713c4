"""take_columns: out[r, c] = x[r, index[c]], inputs in the order that a weight's columns have.

x [rows, width] f32 at a stride, index int32 [width], out [rows, width] f32. An index outside x is
an error: the kernel fails with code 1. CPU only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch, Rows
from nanocupy.kernels.base import CpuKernel

CPU = CpuKernel("take_columns:take_columns")


def reference(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """x [..., width], index int32 [width] -> [..., width]."""
    return x[..., index]


def launch(device: Any, out: Any, x: Any, index: Any, rows: Rows, *, x_stride: int) -> Launch:
    """Args: x_stride in elements."""
    if device.kind == "cuda":
        raise NotImplementedError("[take_columns] has no CUDA kernel yet (gptq with act-order)")
    return Launch(CPU, (out, x, index, rows.count, len(index), 4 * x_stride))
