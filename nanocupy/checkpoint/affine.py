"""The one quantised layout: affine groups along K, MLX's. `w = q * scale + bias`.

For a matrix [N, K] with `bits` bits in groups of `group`:

    weight  uint32 [N, K * bits / 32]   element 0 of a row in the lowest bits of its first word
    scales  f16    [N, K / group]       float32 where 16 bits would not hold them
    biases  f16    [N, K / group]       float32 where 16 bits would not hold them
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack(q: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """uint8 values [N, K] below 2**bits to words [N, K * bits / 32]; bits is 4 or 8.

    `kernels.linear.unpack` is the inverse.
    """
    if bits == 8:
        return np.ascontiguousarray(q).view("<u4")
    return np.ascontiguousarray(q[:, 0::2] | (q[:, 1::2] << 4)).view("<u4")
