"""The launch of silu_mul and gelu_mul on a CPU."""

from __future__ import annotations

from typing import Any

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.quantize import Codes
from nanocupy.kernels.quantize.cpu import arguments

KERNELS = {name: CpuKernel(f"silu_mul:{name}_mul") for name in ("silu", "gelu")}


def launch(
    device: Any,
    out: Any,
    gate: Any,
    up: Any,
    rows: Rows,
    width: int,
    *,
    gate_stride: int | None = None,
    up_stride: int | None = None,
    codes: Codes | None = None,
    activation: str = "silu",
) -> Launch:
    """out = activation(gate) * up.

    Args:
        activation: "silu" or "gelu".
        codes: how rows are rounded, out being uint8. Default: to the dtype of out.
        gate_stride, up_stride: elements from row to row. Default: width.
    """
    strides = (4 * (width if s is None else s) for s in (gate_stride, up_stride))
    finish = arguments(device, out, codes, width)
    return Launch(KERNELS[activation], (out, gate, up, rows.count, width, *strides, *finish))
