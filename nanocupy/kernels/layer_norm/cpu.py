"""The launch of layer_norm on a CPU."""

from __future__ import annotations

from typing import Any

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel, float_argument

KERNEL = CpuKernel("layer_norm:layer_norm")


def launch(
    device: Any,
    out: Any,
    x: Any,
    weight: Any,
    bias: Any,
    eps: float,
    rows: Rows,
    size: int,
    *,
    x_stride: int | None = None,
) -> Launch:
    """Norm the first `rows` rows of `size` f32. out may be x; rows of x are `x_stride` apart."""
    arrays, stride = (out, x, weight, bias, rows.count), size if x_stride is None else x_stride
    return Launch(KERNEL, (*arrays, size, float_argument(device, eps), 4 * stride))
