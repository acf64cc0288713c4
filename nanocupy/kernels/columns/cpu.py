"""The launch of columns on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CpuKernel

KERNEL = CpuKernel("columns:move_columns")


class ColumnsArgs(NamedTuple):
    """Arguments of the kernel; strides in bytes."""

    out: DeviceArray  # of 32-bit words
    x: DeviceArray  # of 32-bit words
    source: DeviceArray  # int32 [columns]
    to: DeviceArray  # int32 [columns]
    rows: DeviceArray
    columns: int  # that are moved
    x_stride: int
    out_stride: int


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, source: DeviceArray, to: DeviceArray,
    rows: Rows, *,
    x_stride: int, out_stride: int,
) -> Launch:  # fmt: skip
    """Columns `source` of x to places `to` of out, on the first `rows` rows.

    Args:
        source, to: int32 [columns].
        x_stride, out_stride: elements from row to row.
    """
    assert out.dtype == x.dtype and out.dtype.itemsize == 4
    numbers = (source.shape[0], 4 * x_stride, 4 * out_stride)
    return Launch(KERNEL, ColumnsArgs(out, x, source, to, rows.count, *numbers))
