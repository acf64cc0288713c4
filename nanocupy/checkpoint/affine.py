"""The one quantised layout: affine groups along K, MLX's. `w = q * scale + bias`.

For a matrix [N, K] with `bits` bits in groups of `group`:

    weight  uint32 [N, K * bits / 32]   element 0 of a row in the lowest bits of its first word
    scales  f16    [N, K / group]
    biases  f16    [N, K / group]       float32 where 16 bits would not hold them

GGUF's block formats hold the same numbers in another order, so that importing them loses nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GROUP = 32
"""Values in one GGUF block of the formats below."""


class BlockFormat(NamedTuple):
    """A GGUF block: a f16 scale, maybe a f16 minimum, then its values.

    Without a minimum the values stand for `(q - zero) * scale`; values of 8 bits are signed.
    """

    bits: int
    nbytes: int
    zero: int | None

    @property
    def data(self) -> int:
        """Where the values start."""
        return 4 if self.zero is None else 2


BLOCK_FORMATS = {
    "Q4_0": BlockFormat(4, 18, 8),
    "Q4_1": BlockFormat(4, 20, None),
    "Q8_0": BlockFormat(8, 34, 128),
}


def pack(q: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """uint8 values [N, K] below 2**bits to words [N, K * bits / 32]; bits is 4 or 8.

    `kernels.linear.unpack` is the inverse.
    """
    if bits == 8:
        return np.ascontiguousarray(q).view("<u4")
    return np.ascontiguousarray(q[:, 0::2] | (q[:, 1::2] << 4)).view("<u4")


def block_weight(kind: str, raw: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The packed weight of rows of GGUF blocks, uint8 [N, bytes of a row]."""
    block = BLOCK_FORMATS[kind]
    qs = _blocks(kind, raw)[:, :, block.data :]
    if block.bits == 8:
        q = qs ^ np.uint8(0x80)  # int8 q to q + 128
    else:  # element j in the low half of byte j, element j + 16 in its high half
        q = np.concatenate([qs & np.uint8(15), qs >> np.uint8(4)], axis=2)
    return pack(q.reshape(raw.shape[0], -1), block.bits)


def block_scales(kind: str, raw: NDArray[np.uint8]) -> NDArray[np.float16]:
    """The scales f16 [N, K / 32] of rows of GGUF blocks."""
    return _half(_blocks(kind, raw), 0)


def block_biases(kind: str, raw: NDArray[np.uint8]) -> NDArray[np.floating]:
    """The biases [N, K / 32] of rows of GGUF blocks: f16, or float32 where f16 is not exact."""
    zero = BLOCK_FORMATS[kind].zero
    if zero is None:
        return _half(_blocks(kind, raw), 2)
    exact = block_scales(kind, raw).astype(np.float32) * np.float32(-zero)
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), exact) else exact


def _blocks(kind: str, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return raw.reshape(raw.shape[0], -1, BLOCK_FORMATS[kind].nbytes)


def _half(blocks: NDArray[np.uint8], at: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(blocks[:, :, at : at + 2]).view("<f2")[..., 0]
