"""The launch of silu_mul and gelu_mul on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.quantize import Codes
from nanocupy.kernels.quantize.cpu import scratch_rounding

KERNELS = {name: CpuKernel(f"silu_mul:{name}_mul") for name in ("silu", "gelu")}


class GatedArgs(NamedTuple):
    """Arguments of silu_mul and gelu_mul before `ScratchRounding`; strides in bytes."""

    out: DeviceArray
    gate: DeviceArray  # f32
    up: DeviceArray  # f32
    rows: DeviceArray
    width: int
    gate_stride: int
    up_stride: int


def launch(
    device: Device, out: DeviceArray, gate: DeviceArray, up: DeviceArray, rows: Rows, width: int, *,
    gate_stride: int | None = None, up_stride: int | None = None, codes: Codes | None = None,
    activation: str = "silu",
) -> Launch:  # fmt: skip
    """out = activation(gate) * up.

    Args:
        activation: "silu" or "gelu".
        codes: how rows are rounded, out being uint8. Default: to the dtype of out.
        gate_stride, up_stride: elements from row to row. Default: width.
    """
    strides = (4 * (width if s is None else s) for s in (gate_stride, up_stride))
    finish = scratch_rounding(device, out, codes, width)
    args = GatedArgs(out, gate, up, rows.count, width, *strides)
    return Launch(KERNELS[activation], (*args, *finish))
