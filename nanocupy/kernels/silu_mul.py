"""silu_mul: silu(gate) * up, the middle of a gated MLP. To the bit silu, then mul.

gate, up [rows, width] f32 inside wider buffers, out [rows, width] f32
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch
from nanocupy.kernels.base import CpuKernel
from nanocupy.kernels.elementwise import silu_reference

CPU = CpuKernel("silu_mul:silu_mul")
CUDA = "silu_mul"


def reference(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """gate, up f32 [rows, width] -> f32 [rows, width]."""
    return silu_reference(gate) * up


def launch(
    out: Any,
    gate: Any,
    up: Any,
    rows: Any,
    width: int,
    *,
    gate_offset: int = 0,
    gate_stride: int | None = None,
    up_offset: int = 0,
    up_stride: int | None = None,
) -> Launch:
    """out = silu(gate) * up.

    Args:
        gate, up: f32 buffers, which may be one buffer; row r starts at element
            offset + r * stride. Default stride: width.
        rows: int64 [1], how many rows are in use.
    """
    strides = [4 * (width if s is None else s) for s in (gate_stride, up_stride)]
    return Launch(CPU, (out, gate, up, rows, width, *strides, 4 * gate_offset, 4 * up_offset))
