"""The Walsh-Hadamard transform, as `mlx.core.hadamard_transform`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype
from nanocupy.core.recorder.dtypes import floating
from nanocupy.core.recorder.graph import Op
from nanocupy.core.recorder.specs import same_spec, upcast

# Hadamard matrices whose size is no power of two, a row a word: bit 1 is 1, bit 0 is -1. From
# N. J. A. Sloane's library (neilsloane.com/hadamard), the ones that MLX takes.
_ROWS = {
    12: "bff 2aa ec3 896 fb0 a25 cec 989 c3b 962 f0e a58",
    20: (
        "84336 4238b 211d5 108fa 0866d 7c139 ba29c d914e e88a7 f0653 35a0f 1ad17 8d49b c685d 6343e "
        "49a10 a0d08 54484 2e042 93021"
    ),
    28: (
        "818694c 41c14a6 20e2a13 1071549 0838ae4 041e532 030d299 3d019d2 1e82ca9 8e43654 c621b2a "
        "e210d95 f00a6ca 7807325 5b3201e ac9900f 564c847 ab24463 d590271 6ac8178 b4640bc 66b70c0 "
        "b35b820 d8adc10 6d54e08 37a8704 9ad4382 cd6a181"
    ),
}


@cache
def _matrix(size: int) -> np.ndarray:
    if size == 1:
        return np.ones((1, 1), np.float32)
    bits = [[int(bit) for bit in f"{int(row, 16):0{size}b}"] for row in _ROWS[size].split()]
    return np.array(bits, np.float32) * 2 - 1


def _odd_part(size: int) -> int | None:
    """m, if size is m * 2^k for one of the matrices."""
    for m in (1, *_ROWS):
        rest = size // m
        if rest and size % m == 0 and rest & (rest - 1) == 0:
            return m
    return None


def _transform(x: np.ndarray, *, odd: int, scale: float) -> np.ndarray:
    """Butterflies along the part that is a power of two, then the matrix of the rest."""
    size = x.shape[-1]
    out = upcast(x).reshape(-1, odd, size // odd)
    step = 1
    while step < size // odd:
        pairs = out.reshape(-1, odd, size // odd // (2 * step), 2, step)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        out = np.stack([first + second, first - second], -2).reshape(out.shape)
        step *= 2
    return ((_matrix(odd) @ out).reshape(x.shape) * np.float32(scale)).astype(x.dtype)


_HADAMARD = Op("hadamard_transform", same_spec, _transform)


def hadamard_transform(a: Any, scale: float | None = None) -> array:
    """H a * scale along the last axis, H the Hadamard matrix of its length.

    Args:
        a: floats [..., m * 2^k], m one of 1, 12, 20, 28.
        scale: None: 1 / sqrt(length), which makes the matrix orthonormal.
    """
    x = as_array(a)
    x = astype(x, floating(x.dtype))
    size = int(x.shape[-1]) if x.ndim else 1
    odd = _odd_part(size)
    if odd is None:
        raise ValueError(
            f"[hadamard_transform] {size} elements: expected m * 2^k, m one of 1, 12, 20, 28"
        )
    if not x.ndim:
        return x * (1.0 if scale is None else scale)
    return record(_HADAMARD, x, odd=odd, scale=size**-0.5 if scale is None else float(scale))
