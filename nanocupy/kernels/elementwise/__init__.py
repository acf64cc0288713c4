"""Elementwise operations on f32 rows: add, mul, silu x * sigmoid(x), gelu (by the tanh formula),
scale (x times a number). Others are chains (`kernels.chains`).

out, x, y [rows, width] f32; out may be x or y. The rows of x and y may have gaps: a stride in
elements says how far apart they are (default: width; 0: the same vector for every row).
"""

from __future__ import annotations

import numpy as np

from nanocupy.kernels.silu_mul import gelu_reference as gelu_reference
from nanocupy.kernels.silu_mul import silu_reference as silu_reference

BINARY = ("add", "mul")
UNARY = ("silu", "gelu")


def add_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + y


def mul_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * y


def scale_reference(x: np.ndarray, factor: float) -> np.ndarray:
    return x * np.float32(factor)
