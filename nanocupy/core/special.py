"""Functions on NumPy arrays that NumPy does not have: of floats in float32, as MLX's are."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

_ERF = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, in double precision and rounded."""
    return np.asarray(_ERF(x)).astype(x.dtype)


# Giles, "Approximating the erfinv function": coefficients from the highest power down, for
# w = -log(1 - x^2) below 5 in w - 2.5, else in sqrt(w) - 3.
_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def erfinv(x: np.ndarray) -> np.ndarray:
    """The inverse of `erf`."""
    w = -np.log1p(-x * x)
    inside = np.where(w < 5, w - 2.5, np.sqrt(w) - 3)
    value = np.where(w < 5, np.polyval(_CENTRE, inside), np.polyval(_TAIL, inside))
    edge = np.where(np.abs(x) == 1, np.copysign(np.inf, x), value * x)
    return np.asarray(edge).astype(x.dtype)


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
