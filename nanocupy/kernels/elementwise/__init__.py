"""Elementwise operations on f32 rows: add x + y, mul x * y, silu x * sigmoid(x), gelu (by the tanh
formula), scale x * a number. Others are chains: `kernels/chains/__init__.py`.

out, x, y [rows, width] f32; out may be x or y. Rows of x and y may lie apart: a stride in elements
says how far (default: width; 0: the same vector for every row).
"""

from __future__ import annotations

import numpy as np

BINARY = ("add", "mul")
UNARY = ("silu", "gelu")
GELU_SLOPE, GELU_CUBE = (2 / np.pi) ** 0.5, 0.044715


def add_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + y


def mul_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * y


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


def scale_reference(x: np.ndarray, factor: float) -> np.ndarray:
    return x * np.float32(factor)
