"""rms_norm: y = x / sqrt(mean(x^2) + eps) * weight, over vectors of K; add_rms_norm adds first.

    x, y [rows, vectors, K] f32, weight [K] f32

Sixteen lanes sum squares along K, each step one fma; a tree joins the lanes. The rest is rounded
step by step: mean, + eps, square root, reciprocal, times x, times weight. K is any number >= 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch
from nanocupy.kernels.base import CpuKernel

CPU = CpuKernel("rms_norm:rms_norm")
CUDA = "rms_norm"
CPU_ADD = CpuKernel("rms_norm:add_rms_norm")
CUDA_ADD = "add_rms_norm"


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x f32 [..., K], weight f32 [K] -> f32 [..., K]."""
    size = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-size // 16) * 16), np.float64)
    padded[..., :size] = x
    squares = np.zeros((*x.shape[:-1], 16), np.float32)
    for start in range(0, size, 16):
        squares = (padded[..., start : start + 16] ** 2 + squares).astype(np.float32)
    mean = tree_sum(squares) / np.float32(size)
    scale = np.float32(1) / np.sqrt(mean + np.float32(eps))
    return x * scale[..., None] * weight


def tree_sum(lanes: np.ndarray) -> np.ndarray:
    """Sum of 16 lanes in the tree of `vsum`: lane i joins lane i + half, four times."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def add_reference(
    x: np.ndarray, residual: np.ndarray, weight: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """(h, rms_norm(h)) with h = x + residual."""
    h = x + residual
    return h, reference(h, weight, eps)


def launch(
    device: Any,
    out: Any,
    x: Any,
    weight: Any,
    eps: float,
    rows: Any,
    *,
    vectors: int = 1,
    x_offset: int = 0,
    x_stride: int | None = None,
    out_offset: int = 0,
    out_stride: int | None = None,
) -> Launch:
    """Norm `vectors` adjacent vectors of each row (heads, say; 1 for a plain norm).

    Args:
        out: f32 buffer; may be x.
        weight: f32 [K].
        rows: int64 [1], how many rows are in use.
        x_offset, out_offset: where row 0 starts in its buffer, in elements.
        x_stride, out_stride: elements from row to row. Default: vectors * K.
    """
    size = weight.shape[0]
    width = vectors * size
    place = [4 * (width if s is None else s) for s in (x_stride, out_stride)]
    place += [4 * x_offset, 4 * out_offset]
    return Launch(CPU, (out, x, weight, rows, size, _scalar(device, eps), vectors, *place))


def launch_add(
    device: Any, out_h: Any, out: Any, x: Any, residual: Any, weight: Any, eps: float, rows: Any
) -> Launch:
    """out_h = x + residual, out = rms_norm(out_h), all [rows, K] f32. out_h may be an input."""
    size = weight.shape[0]
    args = (out_h, out, x, residual, weight, rows, size, _scalar(device, eps))
    return Launch(CPU_ADD, args)


def _scalar(device: Any, value: float) -> Any:
    return device.asarray(np.array([value], np.float32))
