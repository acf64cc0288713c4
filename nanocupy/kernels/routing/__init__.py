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

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel, CudaKernel

KERNELS = {
    name: (CpuKernel(f"routing:{name}"), CudaKernel("routing", name))
    for name in ("softmax", "argsort", "take_along", "sum_axis")
}


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


def _launch(
    device: Any, name: str, arrays: tuple[Any, ...], rows: Rows, vectors: int,
    sizes: tuple[int, ...], strides: tuple[int, ...],
) -> Launch:  # fmt: skip
    cpu, cuda = KERNELS[name]
    if device.kind == "cuda":
        numbers = (*map(np.int32, (vectors, *sizes)), *map(np.int64, strides))
        return Launch(cuda, (*arrays, rows.count, *numbers), (int(rows) * vectors, 1, 1), 32)
    return Launch(cpu, (*arrays, rows.count, vectors, *sizes, *(4 * s for s in strides)))


def launch_softmax(
    device: Any, out: Any, x: Any, rows: Rows, vectors: int, size: int, *, x_stride: int
) -> Launch:
    return _launch(device, "softmax", (out, x), rows, vectors, (size,), (x_stride,))


def launch_argsort(
    device: Any, out: Any, x: Any, rows: Rows, vectors: int, size: int, *, x_stride: int
) -> Launch:
    return _launch(device, "argsort", (out, x), rows, vectors, (size,), (x_stride,))


def launch_take_along(
    device: Any,
    out: Any,
    x: Any,
    index: Any,
    rows: Rows,
    vectors: int,
    size: int,
    count: int,
    *,
    x_stride: int,
    index_stride: int,
) -> Launch:
    """`count` of the `size` elements of each vector."""
    arrays, strides = (out, x, index), (x_stride, index_stride)
    return _launch(device, "take_along", arrays, rows, vectors, (size, count), strides)


def launch_sum(
    device: Any, out: Any, x: Any, rows: Rows, vectors: int, count: int, inner: int, *,
    x_stride: int,
) -> Launch:  # fmt: skip
    return _launch(device, "sum_axis", (out, x), rows, vectors, (count, inner), (x_stride,))
