"""The launch of layer_norm on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CpuKernel, float_argument

KERNEL = CpuKernel("layer_norm:layer_norm")


class LayerNormArgs(NamedTuple):
    """Arguments of the kernel; the stride in bytes."""

    out: DeviceArray  # f32, without gaps
    x: DeviceArray  # f32
    weight: DeviceArray  # f32 [size]
    bias: DeviceArray  # f32 [size]
    rows: DeviceArray
    size: int
    eps: DeviceArray
    x_stride: int


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, weight: DeviceArray, bias: DeviceArray,
    eps: float, rows: Rows, size: int, *,
    x_stride: int | None = None,
) -> Launch:  # fmt: skip
    """Norm the first `rows` rows of `size` f32. out may be x; rows of x are `x_stride` apart."""
    stride = 4 * (size if x_stride is None else x_stride)
    numbers = (rows.count, size, float_argument(device, eps), stride)
    return Launch(KERNEL, LayerNormArgs(out, x, weight, bias, *numbers))
