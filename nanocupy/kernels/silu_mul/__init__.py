"""silu_mul, gelu_mul: silu(gate) * up, gelu(gate) * up, the middle of a gated MLP. To the bit silu
(or gelu), then mul.

gate, up [rows, width] f32 inside wider buffers, out [rows, width] f32, bf16 or codes
(`kernels.quantize`); on CUDA f32, f16 or bf16
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import quantize
from nanocupy.kernels.elementwise import CUDA_BLOCK, cuda_grid, gelu_reference, silu_reference
from nanocupy.kernels.kernel import C_TYPES, CpuKernel, CudaKernel

CPU = {name: CpuKernel(f"silu_mul:{name}_mul") for name in ("silu", "gelu")}


def reference(gate: np.ndarray, up: np.ndarray, activation: str = "silu") -> np.ndarray:
    """gate, up f32 [rows, width] -> f32 [rows, width]."""
    return {"silu": silu_reference, "gelu": gelu_reference}[activation](gate) * up


def launch(
    device: Any,
    out: Any,
    gate: Any,
    up: Any,
    rows: Rows,
    width: int,
    *,
    gate_offset: int = 0,
    gate_stride: int | None = None,
    up_offset: int = 0,
    up_stride: int | None = None,
    codes: quantize.Codes | None = None,
    activation: str = "silu",
) -> Launch:
    """out = activation(gate) * up.

    Args:
        activation: "silu" or "gelu".
        codes: how rows are rounded, out being uint8. Default: to the dtype of out.
        gate, up: f32 buffers, which may be one buffer; row r starts at element
            offset + r * stride. Default stride: width.
    """
    strides = [width if s is None else s for s in (gate_stride, up_stride)]
    if device.kind == "cuda":
        inputs = (gate.reshape(-1)[gate_offset:], up.reshape(-1)[up_offset:])
        args = (out, *inputs, rows.count, np.int32(width), *map(np.int64, strides))
        kernel = CudaKernel("elementwise", f"{activation}_mul<{C_TYPES[out.dtype]}>")
        return Launch(kernel, args, cuda_grid(rows, width), CUDA_BLOCK)
    place = (4 * s for s in (*strides, gate_offset, up_offset))
    finish = quantize.arguments(device, out, codes, width)
    return Launch(CPU[activation], (out, gate, up, rows.count, width, *place, *finish))
