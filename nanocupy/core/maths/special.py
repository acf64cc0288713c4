"""Functions on NumPy arrays that NumPy does not have; floats are computed in float32, as in MLX."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

_ERF = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, in double precision and rounded."""
    return np.asarray(_ERF(x)).astype(x.dtype)


# Giles's approximation of erfinv in N. Juffa's form, as MLX has it: x times a polynomial in
# log(1 - x^2), one near the edges and one in the middle; coefficients from the highest power down.
_EDGES = (
    3.03697567e-10, 2.93243101e-8, 1.22150334e-6, 2.84108955e-5, 3.93552968e-4, 3.02698812e-3,
    4.83185798e-3, -2.64646143e-1, 8.40016484e-1,
)  # fmt: skip
_MIDDLE = (
    5.43877832e-9, 1.43285448e-7, 1.22774793e-6, 1.12963626e-7, -5.61530760e-5, -1.47697632e-4,
    2.31468678e-3, 1.15392581e-2, -2.32015476e-1, 8.86226892e-1,
)  # fmt: skip


def erfinv(x: np.ndarray) -> np.ndarray:
    """The inverse of `erf`; infinite at -1 and 1."""
    x = x.astype(np.float32, copy=False)
    wide = x.astype(np.float64)
    t = np.log((1 - wide * wide).astype(np.float32).astype(np.float64)).astype(np.float32)
    value = np.where(np.abs(t) > np.float32(6.125), _horner(_EDGES, t), _horner(_MIDDLE, t))
    return np.asarray(np.where(np.abs(x) == 1, np.copysign(np.float32(np.inf), x), x * value))


def _horner(coefficients: tuple[float, ...], t: np.ndarray) -> np.ndarray:
    """A polynomial in steps of fma: the product exact, the sum rounded."""
    value, wide = np.full_like(t, coefficients[0]), t.astype(np.float64)
    for c in coefficients[1:]:
        value = (value * wide + np.float64(np.float32(c))).astype(np.float32)
    return value


def round(x: np.ndarray, *, decimals: int) -> np.ndarray:
    """Scale, round halves to even, scale back."""
    if x.dtype.kind != "f":
        if decimals >= 0:
            return x
        return round(x.astype(np.float32), decimals=decimals).astype(x.dtype)
    scale = np.float32(10.0 ** abs(decimals))
    return np.rint(x * scale) / scale if decimals >= 0 else np.rint(x / scale) * scale


def largest(dtype: Any) -> float:
    """The largest finite number of a float dtype."""
    return float(ml_dtypes.finfo(dtype).max)
