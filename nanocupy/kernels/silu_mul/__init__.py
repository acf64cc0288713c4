"""silu_mul, gelu_mul: silu(gate) * up, gelu(gate) * up, the middle of a gated MLP.

    gate, up [rows, width] f32 inside wider buffers
    out [rows, width] f32, bf16 or codes (`kernels.quantize`); on CUDA f32, f16 or bf16

The result is that of silu (or gelu), then mul, to the bit.
"""

from __future__ import annotations

import numpy as np

from nanocupy.kernels.elementwise import gelu_reference, silu_reference


def reference(gate: np.ndarray, up: np.ndarray, activation: str = "silu") -> np.ndarray:
    """gate, up f32 [rows, width] -> f32 [rows, width]."""
    return {"silu": silu_reference, "gelu": gelu_reference}[activation](gate) * up
