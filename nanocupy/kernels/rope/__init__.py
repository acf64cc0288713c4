"""rope: rotary position embedding. Pairs of a head turn by angles that grow with the position.

    (u, v) -> (u cos t - v sin t, v cos t + u sin t),  t = position * frequency[j]

x [rows, heads, head_dim] f32; the first `dims` of a head turn, the rest is copied. Pair j is
(x[j], x[dims/2 + j]), or (x[2j], x[2j + 1]) when `traditional`. Each product is rounded, then the
sum. The table holds, per position, dims/2 cosines then dims/2 sines: f32 [positions, dims]. A
position outside it is an error: on the CPU the kernel fails with code 1, on CUDA its row is NaN.
"""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import DeviceArray


def frequencies(dims: int, theta: float) -> np.ndarray:
    """theta^(-2j / dims) for j below dims/2, f64: radians a position."""
    with np.errstate(invalid="ignore"):  # of a negative theta, which is NaN
        return np.asarray(float(theta) ** (-np.arange(0, dims, 2) / dims))


def table(frequency: np.ndarray, positions: int, magnitude: float = 1.0) -> np.ndarray:
    """The table of the kernel for positions 0 .. positions - 1.

    Args:
        frequency: f64 [dims/2], radians a position (already scaled, if the model scales them).
        magnitude: multiplies cosines and sines (YaRN's attention factor).
    """
    return table_at(frequency, np.arange(positions), magnitude)


def table_at(frequency: np.ndarray, at: np.ndarray, magnitude: float = 1.0) -> np.ndarray:
    """The lines of a table for these positions, which may be negative."""
    angles = at[:, None] * frequency.astype(np.float64)
    return (np.concatenate([np.cos(angles), np.sin(angles)], 1) * magnitude).astype(np.float32)


def reference(
    x: np.ndarray, positions: np.ndarray, table: np.ndarray, traditional: bool = False
) -> np.ndarray:
    """x f32 [rows, heads, head_dim], positions int32 [rows], table f32 [P, dims] -> as x."""
    dims = table.shape[1]
    cos, sin = np.split(table[positions][:, None, :], 2, axis=-1)
    pair = np.arange(dims).reshape(-1, 2).T if traditional else np.arange(dims).reshape(2, -1)
    first, second = x[..., pair[0]], x[..., pair[1]]
    out = x.copy()
    out[..., pair[0]] = first * cos - second * sin
    out[..., pair[1]] = second * cos + first * sin
    return out


def checked_table(table: DeviceArray, head_dim: int) -> tuple[int, int]:
    """The table's shape (positions, dims). Raises ValueError if it turns no such heads."""
    limit, dims = table.shape
    if dims % 2 or not 0 < dims <= head_dim:
        raise ValueError(
            f"[rope] table of {dims} dims for heads of {head_dim}: expected an even number of "
            "dims, at most the size of a head"
        )
    return limit, dims
