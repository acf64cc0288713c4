"""The launch of quantize on a CPU, and how other kernels are told to round what they write."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import F32, KINDS, NUMBERS
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.quantize import Codes

KERNEL = CpuKernel("quantize:quantize")


class QuantizeArgs(NamedTuple):
    """Arguments of the kernel before `Rounding`; the stride in bytes."""

    x: DeviceArray  # f32
    out: DeviceArray
    rows: DeviceArray
    size: int
    x_stride: int


class Rounding(NamedTuple):
    """How a kernel rounds the rows that it writes: its last arguments."""

    row_bytes: int
    group: int  # values that are rounded together
    kind: int  # of `dtypes.NUMBERS`
    zero: int  # see `Codes.zero`


class ScratchRounding(NamedTuple):
    """`Rounding`, after where a row lies until it is rounded."""

    scratch: DeviceArray | int
    scratch_bytes: int  # of a thread
    row_bytes: int
    group: int
    kind: int
    zero: int


def rounding(out: DeviceArray, codes: Codes | None, size: int) -> Rounding:
    """How a kernel rounds rows of `size`: to codes, or to the dtype of `out`, f32 or bf16."""
    if codes:
        return Rounding(codes.row_bytes(size), codes.group, NUMBERS[codes.kind], codes.zero)
    return Rounding(size * out.dtype.itemsize, 16, NUMBERS[KINDS[out.dtype]], 0)


def scratch_rounding(
    device: Device, out: DeviceArray, codes: Codes | None, size: int
) -> ScratchRounding:
    """`rounding` for a kernel that computes a row before it rounds it."""
    how = rounding(out, codes, size)
    line = 0 if how.kind == F32 else -(-size // 16) * 64
    scratch = device.empty((device.threads, line), np.uint8) if line else 0
    return ScratchRounding(scratch, line, *how)


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, size: int, codes: Codes, *,
    x_stride: int,
) -> Launch:  # fmt: skip
    """x f32 [rows, size], its rows `x_stride` elements apart -> codes, uint8 [rows, row_bytes]."""
    finish = rounding(out, codes, size)
    return Launch(KERNEL, (*QuantizeArgs(x, out, rows.count, size, 4 * x_stride), *finish))
