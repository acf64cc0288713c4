"""rms_norm: y = x / sqrt(mean(x^2) + eps) * weight, over vectors of K; add_rms_norm adds first.

    x, y [rows, vectors, K] f32, weight [K] f32

Sixteen lanes sum squares along K, each step one fma; a tree joins the lanes. The rest is rounded
step by step: mean, + eps, square root, reciprocal, times x, times weight. K is any number >= 1.
y may be rounded as it is written: to bf16, or to codes (`kernels.quantize`). On CUDA a block sums a
vector, in an order that depends on K only; y may be f16 or bf16.
"""

from __future__ import annotations

import numpy as np


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
