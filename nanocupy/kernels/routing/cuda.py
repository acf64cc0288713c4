"""Launches of softmax, argsort, take_along and sum_axis on CUDA: a warp a vector."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CudaKernel


def launch_softmax(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, vectors: int, size: int, *,
    x_stride: int,
) -> Launch:  # fmt: skip
    """See `cpu.launch_softmax`."""
    return _launch("softmax", (out, x), rows, (vectors, size), (x_stride,))


def launch_argsort(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, vectors: int, size: int, *,
    x_stride: int,
) -> Launch:  # fmt: skip
    """See `cpu.launch_argsort`."""
    return _launch("argsort", (out, x), rows, (vectors, size), (x_stride,))


def launch_take_along(
    device: Device, out: DeviceArray, x: DeviceArray, index: DeviceArray, rows: Rows,
    vectors: int, size: int, taken: int, *, x_stride: int, index_stride: int,
) -> Launch:  # fmt: skip
    """See `cpu.launch_take_along`."""
    strides = (x_stride, index_stride)
    return _launch("take_along", (out, x, index), rows, (vectors, size, taken), strides)


def launch_sum(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, vectors: int, summed: int,
    inner: int, *, x_stride: int,
) -> Launch:  # fmt: skip
    """See `cpu.launch_sum`."""
    return _launch("sum_axis", (out, x), rows, (vectors, summed, inner), (x_stride,))


def _launch(
    name: str,
    arrays: tuple[DeviceArray, ...],
    rows: Rows,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
) -> Launch:
    args = (*arrays, rows.count, *map(np.int32, sizes), *map(np.int64, strides))
    return Launch(CudaKernel("routing", name), args, (int(rows) * sizes[0], 1, 1), 32)
