"""The one quantised layout: affine groups along K, MLX's. `w = code * scale + bias`.

For a matrix [N, K] with `bits` bits in groups of `group`:

    weight  uint32 [N, K * bits / 32]   a row is one stream of bits, the first code in the lowest
    scales  f16    [N, K / group]       float32 where 16 bits would not hold them
    biases  f16    [N, K / group]       float32 where 16 bits would not hold them
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """Codes below 2**bits, uint8 [..., K], as words uint32 [..., K * bits / 32]; bits up to 8."""
    if bits == 8:
        return np.ascontiguousarray(codes).view("<u4")
    if bits == 4:
        return np.ascontiguousarray(codes[..., 0::2] | codes[..., 1::2] << np.uint8(4)).view("<u4")
    stream = np.unpackbits(codes[..., None], axis=-1, count=bits, bitorder="little")
    flat = stream.reshape(*codes.shape[:-1], -1)
    return np.packbits(flat, axis=-1, bitorder="little").view("<u4")


def unpack(words: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """The inverse of `pack`; words may be signed, too."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return octets
    if bits == 4:
        codes = np.empty((*octets.shape[:-1], 2 * octets.shape[-1]), np.uint8)
        codes[..., 0::2] = octets & np.uint8(15)
        codes[..., 1::2] = octets >> np.uint8(4)
        return codes
    stream = np.unpackbits(octets, axis=-1, bitorder="little").reshape(*words.shape[:-1], -1, bits)
    return np.packbits(stream, axis=-1, bitorder="little")[..., 0]
