"""Launches of softmax, argsort, take_along and sum_axis on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CpuKernel

SOFTMAX, ARGSORT, TAKE_ALONG, SUM_AXIS = (
    CpuKernel(f"routing:{name}") for name in ("softmax", "argsort", "take_along", "sum_axis")
)


class VectorArgs(NamedTuple):
    """Arguments of softmax and argsort; the stride in bytes."""

    out: DeviceArray
    x: DeviceArray
    rows: DeviceArray
    vectors: int  # of a row
    size: int
    x_stride: int


class TakeAlongArgs(NamedTuple):
    """Arguments of take_along; strides in bytes."""

    out: DeviceArray
    x: DeviceArray
    indexes: DeviceArray
    rows: DeviceArray
    vectors: int  # of a row
    size: int
    taken: int  # elements of a vector
    x_stride: int
    index_stride: int


class SumArgs(NamedTuple):
    """Arguments of sum_axis; the stride in bytes."""

    out: DeviceArray
    x: DeviceArray
    rows: DeviceArray
    vectors: int  # of a row
    summed: int  # elements that become one
    inner: int
    x_stride: int


def launch_softmax(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, vectors: int, size: int, *,
    x_stride: int,
) -> Launch:  # fmt: skip
    """The softmax of `vectors` vectors a row; `x_stride` in elements."""
    return Launch(SOFTMAX, VectorArgs(out, x, rows.count, vectors, size, 4 * x_stride))


def launch_argsort(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, vectors: int, size: int, *,
    x_stride: int,
) -> Launch:  # fmt: skip
    """The order of `vectors` vectors a row; `x_stride` in elements."""
    return Launch(ARGSORT, VectorArgs(out, x, rows.count, vectors, size, 4 * x_stride))


def launch_take_along(
    device: Device, out: DeviceArray, x: DeviceArray, index: DeviceArray, rows: Rows,
    vectors: int, size: int, taken: int, *, x_stride: int, index_stride: int,
) -> Launch:  # fmt: skip
    """`taken` of the `size` elements of each vector; strides in elements."""
    sizes, strides = (vectors, size, taken), (4 * x_stride, 4 * index_stride)
    return Launch(TAKE_ALONG, TakeAlongArgs(out, x, index, rows.count, *sizes, *strides))


def launch_sum(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, vectors: int, summed: int,
    inner: int, *, x_stride: int,
) -> Launch:  # fmt: skip
    """The sums over the first axis of [summed, inner]; `x_stride` in elements."""
    return Launch(SUM_AXIS, SumArgs(out, x, rows.count, vectors, summed, inner, 4 * x_stride))
