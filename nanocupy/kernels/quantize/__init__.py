"""Activations in 16 or 8 bits with a scale a group, as quantised weights read them on a CPU.

code = round(x / scale), scale = max|x| of a group along K / 32767 or 127. A row is its codes, then
(scale, scale * sum of codes) a group; for a weight whose codes all mean code - zero, (scale, int32
-zero * sum of codes). Of every four 16-bit codes the second and the third are
exchanged: a 32-bit word of a packed weight gives up its even bytes together, then its odd ones.

What makes a value (a norm, say) may round it as it writes it: `arguments`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import FLOATS, CpuKernel

_KINDS = {"f32": 0, "i8": 1, "i16": 2, "bf16": 3}  # as kernels tell them apart; bytes of a code
LARGEST = {"i16": 32767, "i8": 127}  # code of an activation
QUANTIZE = CpuKernel("quantize:quantize")


@dataclass(frozen=True)
class Codes:
    """How rows of activations are rounded: to "i16" or "i8", with a scale for `group` values.

    Attributes:
        zero: the code of the weight that stands for 0, if there is one; else 0.
    """

    kind: str
    group: int
    zero: int = 0

    def row_bytes(self, size: int) -> int:
        """Bytes of a row of `size` values, padded to whole cache lines."""
        return -(-(_KINDS[self.kind] * size + 8 * (size // self.group)) // 64) * 64


def reference(x: np.ndarray, codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """x f32 [rows, K] -> (codes int32 [rows, K], scales f32 [rows, K/G])."""
    parts = x.astype(np.float32).reshape(x.shape[0], -1, codes.group)
    scales = np.abs(parts).max(-1) / np.float32(LARGEST[codes.kind])
    normal = scales > np.finfo(np.float32).tiny
    inverse = np.where(normal, np.float32(1) / np.where(normal, scales, 1), np.float32(0))
    rounded = np.rint(parts * inverse[..., None].astype(np.float32))
    return rounded.astype(np.int32).reshape(x.shape), scales.astype(np.float32)


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


def launch(x: Any, out: Any, rows: Rows, size: int, codes: Codes, x_stride: int) -> Launch:
    """x f32 [rows, size] at a stride in bytes -> rows of codes, uint8 [rows, row_bytes]."""
    return Launch(QUANTIZE, (x, out, rows.count, size, x_stride, *rounding(out, codes, size)))


def launch_cast(x: Any, out: Any, rows: Rows, size: int, x_stride: int) -> Launch:
    """x f32 [rows, size] at a stride in bytes -> bf16 [rows, size]."""
    return Launch(QUANTIZE, (x, out, rows.count, size, x_stride, *rounding(out, None, size)))
