"""Activations in 16 or 8 bits with a scale for each group, as quantised weights read them on a CPU.

    code = round(x / scale), scale = max|x| of the group along K / 32767 or 127

A row is its codes, then two words for each group: (scale, scale * sum of codes), or (scale, int32
-zero * sum of codes) for a weight whose codes c all mean c - zero. The second and the third of
every four 16-bit codes are exchanged, because a 32-bit word of a packed weight is unpacked into its
even bytes, then its odd ones.

A kernel that computes values (a norm, say) may round them as it writes them: `cpu.rounding`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nanocupy.dtypes import DTYPES

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
        return -(-(DTYPES[self.kind].itemsize * size + 8 * (size // self.group)) // 64) * 64


def reference(x: np.ndarray, codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """x f32 [rows, K] -> (codes int32 [rows, K], scales f32 [rows, K/G])."""
    parts = x.astype(np.float32).reshape(x.shape[0], -1, codes.group)
    scales = np.abs(parts).max(-1) / np.float32(LARGEST[codes.kind])
    normal = scales > np.finfo(np.float32).tiny
    inverse = np.where(normal, np.float32(1) / np.where(normal, scales, 1), np.float32(0))
    rounded = np.rint(parts * inverse[..., None].astype(np.float32))
    return rounded.astype(np.int32).reshape(x.shape), scales.astype(np.float32)
