"""Launches of elementwise kernels on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import CudaKernel


def launch_binary(
    device: Device, name: str, out: DeviceArray, x: DeviceArray, y: DeviceArray, rows: Rows,
    width: int, *,
    x_stride: int | None = None, y_stride: int | None = None,
) -> Launch:  # fmt: skip
    """out = `name` of x and y, one of `BINARY`, on the first `rows` rows of `width` f32."""
    return _launch(name, (out, x, y), rows, width, x_stride, y_stride)


def launch_unary(
    device: Device, name: str, out: DeviceArray, x: DeviceArray, rows: Rows, width: int, *,
    x_stride: int | None = None,
) -> Launch:  # fmt: skip
    """out = `name` of x, one of `UNARY`, on the first `rows` rows of `width` f32."""
    return _launch(name, (out, x), rows, width, x_stride)


def launch_scale(
    device: Device, out: DeviceArray, x: DeviceArray, factor: float, rows: Rows, width: int, *,
    x_stride: int | None = None,
) -> Launch:  # fmt: skip
    """out = x * factor on the first `rows` rows of `width` f32."""
    plain = _launch("scale", (out, x), rows, width, x_stride)
    return plain._replace(args=(*plain.args, np.float32(factor)))


def _launch(
    name: str, arrays: tuple[Any, ...], rows: Rows, width: int, *strides: int | None
) -> Launch:
    apart = (np.int64(width if s is None else s) for s in strides)
    args = (*arrays, rows.count, np.int32(width), *apart)
    return cuda_grid.elementwise(CudaKernel("elementwise", name), args, rows, width)
