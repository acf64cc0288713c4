"""What routers do inside rows: softmax, argsort, take_along, sum_axis.

    softmax      y[v] = exp(x[v] - largest) / their sum
    argsort      y[v] = the places of x[v] in ascending order; equals stay in order, NaN comes last
    take_along   y[v, i] = x[v, index[v, i]]
    sum_axis     y[v, j] = sum over i, ascending, of x[v, i, j]

x f32 [rows, vectors, size] with rows `x_stride` apart, y without gaps; argsort's and index int32.
An index outside a vector is an error: on the CPU the kernel fails with code 1, on CUDA y is NaN.
Sizes are those of routers, up to some hundreds: argsort counts who comes before.
"""

from __future__ import annotations

import numpy as np


def softmax_reference(x: np.ndarray) -> np.ndarray:
    """x f32 [..., size] -> f32."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def argsort_reference(x: np.ndarray) -> np.ndarray:
    """x f32 [..., size] -> int32."""
    return np.argsort(x, -1, kind="stable").astype(np.int32)


def take_along_reference(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.take_along_axis(x, index.astype(np.int64), -1)


def sum_axis_reference(x: np.ndarray) -> np.ndarray:
    """x f32 [..., count, inner] -> f32 [..., inner]."""
    return np.asarray(x.sum(-2))
