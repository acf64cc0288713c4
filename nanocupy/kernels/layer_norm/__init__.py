"""layer_norm: y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias, over rows of K.

    x, y [rows, K] f32, weight, bias [K] f32

Sixteen lanes sum along K, a tree joins them, twice: for the mean, then for the squares of what is
apart from it. On CUDA a block sums a row, in an order that depends on K only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel, CudaKernel

CPU = CpuKernel("layer_norm:layer_norm")


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """x f32 [..., K] -> f32 [..., K]."""
    apart = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt(np.square(apart).mean(-1, keepdims=True) + np.float32(eps))
    return np.asarray(apart * scale * weight + bias, np.float32)


def launch(
    device: Any,
    out: Any,
    x: Any,
    weight: Any,
    bias: Any,
    eps: float,
    rows: Rows,
    size: int,
    *,
    x_stride: int | None = None,
) -> Launch:
    """Norm the first `rows` rows of `size` f32. out may be x; rows of x are `x_stride` apart."""
    stride, arrays = size if x_stride is None else x_stride, (out, x, weight, bias, rows.count)
    if device.kind == "cuda":
        threads = 32 if size <= 128 else 128 if size <= 1024 else 256 if size <= 4096 else 512
        kernel = CudaKernel("layer_norm", f"layer_norm<{threads}>")
        args = (*arrays, np.int32(size), np.float32(eps), np.int64(stride))
        return Launch(kernel, args, (int(rows), 1, 1), threads)
    number = device.asarray(np.array([eps], np.float32))
    return Launch(CPU, (*arrays, size, number, 4 * stride))
