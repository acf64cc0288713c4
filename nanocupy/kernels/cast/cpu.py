"""The launch of cast on a CPU: the kernel of `quantize` also rounds to bf16."""

from __future__ import annotations

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import bfloat16
from nanocupy.kernels.quantize.cpu import KERNEL, QuantizeArgs, rounding

DTYPES = (bfloat16,)
"""What rows can be rounded to."""


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, width: int, *,
    x_stride: int | None = None,
) -> Launch:  # fmt: skip
    """out = x on the first `rows` rows, in out's dtype; x's are `x_stride` elements apart."""
    apart = 4 * (width if x_stride is None else x_stride)
    finish = rounding(out, None, width)
    return Launch(KERNEL, (*QuantizeArgs(x, out, rows.count, width, apart), *finish))
