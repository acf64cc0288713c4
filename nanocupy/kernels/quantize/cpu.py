"""The launch of quantize on a CPU, and how other kernels are told to round what they write."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import F32, KINDS, NUMBERS
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.quantize import Codes

KERNEL = CpuKernel("quantize:quantize")


class QuantizeArgs(NamedTuple):
    """Arguments of the kernel; the stride in bytes."""

    x: DeviceArray  # f32
    out: DeviceArray
    rows: DeviceArray
    size: int
    x_stride: int
    row_bytes: int  # of a row of out
    group: int
    kind: int
    zero: int


def rounding(out: DeviceArray, codes: Codes | None, size: int) -> tuple[int, int, int, int]:
    """How a kernel writes rows of `size`, as arguments: bytes of a row, group, kind, zero.

    Args:
        codes: how it rounds them. None: to the dtype of `out`, f32 or bf16.
    """
    if codes:
        return codes.row_bytes(size), codes.group, NUMBERS[codes.kind], codes.zero
    return size * out.dtype.itemsize, 16, NUMBERS[KINDS[out.dtype]], 0


def arguments(device: Device, out: DeviceArray, codes: Codes | None, size: int) -> tuple[Any, ...]:
    """`rounding`, after where a row lies until it is rounded: scratch, bytes of it a thread."""
    row, group, kind, zero = rounding(out, codes, size)
    line = 0 if kind == F32 else -(-size // 16) * 64
    scratch = device.empty((device.threads, line), np.uint8) if line else 0
    return scratch, line, row, group, kind, zero


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, size: int, codes: Codes, *,
    x_stride: int,
) -> Launch:  # fmt: skip
    """x f32 [rows, size], its rows `x_stride` elements apart -> codes, uint8 [rows, row_bytes]."""
    finish = rounding(out, codes, size)
    return Launch(KERNEL, QuantizeArgs(x, out, rows.count, size, 4 * x_stride, *finish))
