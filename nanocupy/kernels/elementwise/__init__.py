"""Elementwise operations on f32 rows: add, mul, silu x * sigmoid(x), gelu (by the tanh formula),
scale (x times a number). Others are chains (`kernels.chains`).

out, x, y [rows, width] f32; out may be x or y. The rows of x and y may have gaps: a stride in
elements says how far apart they are (default: width; 0: the same vector for every row).
"""

from __future__ import annotations

import numpy as np

BINARY = ("add", "mul")
UNARY = ("silu", "gelu")
GELU_SLOPE, GELU_CUBE = (2 / np.pi) ** 0.5, 0.044715


def silu_reference(x: np.ndarray) -> np.ndarray:
    """x f32 -> f32: x / (1 + e) or, where x < 0, x*e / (1 + e), with e = exp(-|x|)."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, x * e, x) / (np.float32(1) + e)


def gelu_reference(x: np.ndarray) -> np.ndarray:
    """x f32 -> f32: x/2 * (1 + tanh(u)) with u = sqrt(2/pi) * (x + 0.044715 x^3), which is
    x * sigmoid(2u)."""
    twice = np.float32(2 * GELU_SLOPE) * (x + np.float32(GELU_CUBE) * x * x * x)
    e = np.exp(-np.abs(twice))
    return np.where(x < 0, x * e, x) / (np.float32(1) + e)
