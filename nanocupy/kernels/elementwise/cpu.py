"""Launches of elementwise kernels on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.elementwise import BINARY, UNARY
from nanocupy.kernels.kernel import CpuKernel, float_argument

KERNELS = {name: CpuKernel(f"elementwise:{name}") for name in (*BINARY, *UNARY, "scale")}


class BinaryArgs(NamedTuple):
    """Arguments of a kernel of two inputs; strides in bytes."""

    out: DeviceArray  # f32, without gaps
    x: DeviceArray  # f32
    y: DeviceArray  # f32
    rows: DeviceArray
    width: int
    x_stride: int
    y_stride: int


class UnaryArgs(NamedTuple):
    """Arguments of a kernel of one input; the stride in bytes."""

    out: DeviceArray  # f32, without gaps
    x: DeviceArray  # f32
    rows: DeviceArray
    width: int
    x_stride: int


class ScaleArgs(NamedTuple):
    """Arguments of scale; the stride in bytes."""

    out: DeviceArray  # f32, without gaps
    x: DeviceArray  # f32
    factor: DeviceArray
    rows: DeviceArray
    width: int
    x_stride: int


def launch_binary(
    device: Device, name: str, out: DeviceArray, x: DeviceArray, y: DeviceArray, rows: Rows,
    width: int, *,
    x_stride: int | None = None, y_stride: int | None = None,
) -> Launch:  # fmt: skip
    """out = `name` of x and y, one of `BINARY`, on the first `rows` rows of `width` f32."""
    strides = (4 * (width if s is None else s) for s in (x_stride, y_stride))
    return Launch(KERNELS[name], BinaryArgs(out, x, y, rows.count, width, *strides))


def launch_unary(
    device: Device, name: str, out: DeviceArray, x: DeviceArray, rows: Rows, width: int, *,
    x_stride: int | None = None,
) -> Launch:  # fmt: skip
    """out = `name` of x, one of `UNARY`, on the first `rows` rows of `width` f32."""
    stride = 4 * (width if x_stride is None else x_stride)
    return Launch(KERNELS[name], UnaryArgs(out, x, rows.count, width, stride))


def launch_scale(
    device: Device, out: DeviceArray, x: DeviceArray, factor: float, rows: Rows, width: int, *,
    x_stride: int | None = None,
) -> Launch:  # fmt: skip
    """out = x * factor on the first `rows` rows of `width` f32."""
    stride, number = 4 * (width if x_stride is None else x_stride), float_argument(device, factor)
    return Launch(KERNELS["scale"], ScaleArgs(out, x, number, rows.count, width, stride))
