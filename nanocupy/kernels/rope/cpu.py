"""The launch of rope on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.rope import checked_table

ROPE = CpuKernel("rope:rope")


class RopeArgs(NamedTuple):
    """Arguments of the kernel; strides in bytes."""

    out: DeviceArray  # f32
    x: DeviceArray  # f32
    positions: DeviceArray  # int32 [rows]
    table: DeviceArray  # f32 [limit, dims]
    rows: DeviceArray  # int64 [1]
    heads: int
    head_dim: int
    dims: int
    limit: int
    traditional: int
    x_stride: int
    out_stride: int


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, positions: DeviceArray, table: DeviceArray,
    rows: Rows, *, heads: int, head_dim: int, traditional: bool = False,
    x_stride: int | None = None, out_stride: int | None = None,
) -> Launch:  # fmt: skip
    """Turn `heads` adjacent heads of each row. out may be x, if strides agree.

    Args:
        positions: int32 [rows].
        table: f32 [positions, dims] with dims <= head_dim, even.
        x_stride, out_stride: elements from row to row. Default: heads * head_dim.
    """
    limit, dims = checked_table(table, head_dim)
    strides = (4 * (heads * head_dim if s is None else s) for s in (x_stride, out_stride))
    shape = (heads, head_dim, dims, limit, int(traditional))
    return Launch(ROPE, RopeArgs(out, x, positions, table, rows.count, *shape, *strides))
