"""silu_mul, gelu_mul: silu(gate) * up, gelu(gate) * up, the middle of a gated MLP.

    gate, up [rows, width] f32 inside wider buffers
    out [rows, width] f32, bf16 or codes (`kernels.quantize`); on CUDA f32, f16 or bf16

The result is that of silu (or gelu), then mul, to the bit.
"""

from __future__ import annotations

import numpy as np

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


def reference(gate: np.ndarray, up: np.ndarray, activation: str = "silu") -> np.ndarray:
    """gate, up f32 [rows, width] -> f32 [rows, width]."""
    return {"silu": silu_reference, "gelu": gelu_reference}[activation](gate) * up
