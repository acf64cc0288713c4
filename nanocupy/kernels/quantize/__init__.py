"""Activations in 16 or 8 bits with a scale a group, as quantised weights read them on a CPU.

code = round(x / scale), scale = max|x| of a group along K / 32767 or 127. A row is its codes, then
(scale, scale * sum of codes) a group; for a weight whose codes all mean code - zero, (scale, int32
-zero * sum of codes). Of every four 16-bit codes the second and the third are
exchanged: a 32-bit word of a packed weight gives up its even bytes together, then its odd ones.

What makes a value (a norm, say) may round it as it writes it: `cpu.arguments`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LARGEST = {"i16": 32767, "i8": 127}  # code of an activation


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
        itemsize = {"i16": 2, "i8": 1}[self.kind]
        return -(-(itemsize * size + 8 * (size // self.group)) // 64) * 64


def reference(x: np.ndarray, codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """x f32 [rows, K] -> (codes int32 [rows, K], scales f32 [rows, K/G])."""
    parts = x.astype(np.float32).reshape(x.shape[0], -1, codes.group)
    scales = np.abs(parts).max(-1) / np.float32(LARGEST[codes.kind])
    normal = scales > np.finfo(np.float32).tiny
    inverse = np.where(normal, np.float32(1) / np.where(normal, scales, 1), np.float32(0))
    rounded = np.rint(parts * inverse[..., None].astype(np.float32))
    return rounded.astype(np.int32).reshape(x.shape), scales.astype(np.float32)
