"""The launch of quantize on a CPU, and how other kernels are told to round what they write."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import FLOATS, CpuKernel
from nanocupy.kernels.quantize import Codes

KERNEL = CpuKernel("quantize:quantize")
_KINDS = {"f32": 0, "i8": 1, "i16": 2, "bf16": 3}  # as kernels tell them apart


def rounding(out: Any, codes: Codes | None, size: int) -> tuple[int, int, int, int]:
    """How a kernel writes rows of `size`, as arguments: bytes of a row, group, kind, zero.

    Args:
        codes: how it rounds them. None: to the dtype of `out`, f32 or bf16.
    """
    if codes:
        return codes.row_bytes(size), codes.group, _KINDS[codes.kind], codes.zero
    return size * out.dtype.itemsize, 16, _KINDS[FLOATS[out.dtype]], 0


def arguments(device: Any, out: Any, codes: Codes | None, size: int) -> tuple[Any, ...]:
    """`rounding`, after where a row lies until it is rounded: scratch, bytes of it a thread."""
    row, group, kind, zero = rounding(out, codes, size)
    line = 0 if kind == _KINDS["f32"] else -(-size // 16) * 64
    scratch = device.empty((device.threads, line), np.uint8) if line else 0
    return scratch, line, row, group, kind, zero


def launch(
    device: Any, out: Any, x: Any, rows: Rows, size: int, codes: Codes, *, x_stride: int
) -> Launch:
    """x f32 [rows, size], its rows `x_stride` elements apart -> codes, uint8 [rows, row_bytes]."""
    return Launch(KERNEL, (x, out, rows.count, size, 4 * x_stride, *rounding(out, codes, size)))
