"""Elementwise operations on f32 rows: add x + y, mul x * y, silu x * sigmoid(x), gelu (by the tanh
formula), scale x * a number. Others are chains: `kernels/chains/__init__.py`.

out, x, y [rows, width] f32; out may be x or y. Rows of x and y may lie apart: a stride in elements
says how far (default: width; 0: the same vector for every row). add_bias, on CUDA only, adds one
vector to every row, in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel, CudaKernel

CPU_SCALE, CUDA_SCALE = CpuKernel("elementwise:scale"), CudaKernel("elementwise", "scale")
CUDA_ADD_BIAS = CudaKernel("elementwise", "add_bias")
BINARY = {
    name: (CpuKernel(f"elementwise:{name}"), CudaKernel("elementwise", name))
    for name in ("add", "mul")
}
"""The operations of two inputs, by name: on the CPU, on CUDA."""
UNARY = {
    name: (CpuKernel(f"elementwise:{name}"), CudaKernel("elementwise", name))
    for name in ("silu", "gelu")
}
"""The operations of one input, by name: on the CPU, on CUDA."""
CUDA_BLOCK = 256  # threads, four elements each
GELU_SLOPE, GELU_CUBE = (2 / np.pi) ** 0.5, 0.044715


def add_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + y


def mul_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * y


def silu_reference(x: np.ndarray) -> np.ndarray:
    """x f32 -> f32: x / (1 + e) or, where x < 0, x*e / (1 + e), with e = exp(-|x|)."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, x * e, x) / (np.float32(1) + e)


def gelu_reference(x: np.ndarray) -> np.ndarray:
    """x f32 -> f32: x/2 * (1 + tanh(u)) with u = sqrt(2/pi) * (x + 0.044715 x^3), which is
    x * sigmoid(2u)."""
    twice = np.float32(2 * GELU_SLOPE) * (x + np.float32(GELU_CUBE) * x * x * x)
    e = np.exp(-np.abs(twice))
    return np.where(x < 0, x * e, x) / (np.float32(1) + e)


def scale_reference(x: np.ndarray, factor: float) -> np.ndarray:
    return x * np.float32(factor)


def cuda_grid(rows: Rows, width: int) -> tuple[int, int, int]:
    """Blocks for rows of `width`: one or more a row."""
    return int(rows), -(-width // (4 * CUDA_BLOCK)), 1


def _launch(
    device: Any,
    kernels: tuple[CpuKernel, CudaKernel],
    arrays: tuple[Any, ...],
    rows: Rows,
    width: int,
    strides: tuple[int | None, ...],
) -> Launch:
    apart = [width if s is None else s for s in strides]
    if device.kind == "cuda":
        args = (*arrays, rows.count, np.int32(width), *map(np.int64, apart))
        return Launch(kernels[1], args, cuda_grid(rows, width), CUDA_BLOCK)
    return Launch(kernels[0], (*arrays, rows.count, width, *(4 * s for s in apart)))


def launch_binary(
    device: Any,
    name: str,
    out: Any,
    x: Any,
    y: Any,
    rows: Rows,
    width: int,
    *,
    x_stride: int | None = None,
    y_stride: int | None = None,
) -> Launch:
    """out = `name` of x and y, one of `BINARY`, on the first `rows` rows of `width` f32."""
    return _launch(device, BINARY[name], (out, x, y), rows, width, (x_stride, y_stride))


def launch_unary(
    device: Any,
    name: str,
    out: Any,
    x: Any,
    rows: Rows,
    width: int,
    *,
    x_stride: int | None = None,
) -> Launch:
    """out = `name` of x, one of `UNARY`, on the first `rows` rows of `width` f32."""
    return _launch(device, UNARY[name], (out, x), rows, width, (x_stride,))


def launch_scale(
    device: Any,
    out: Any,
    x: Any,
    factor: float,
    rows: Rows,
    width: int,
    *,
    x_stride: int | None = None,
) -> Launch:
    """out = x * factor on the first `rows` rows of `width` f32."""
    apart = width if x_stride is None else x_stride
    if device.kind == "cuda":
        args = (out, x, rows.count, np.int32(width), np.int64(apart), np.float32(factor))
        return Launch(CUDA_SCALE, args, cuda_grid(rows, width), CUDA_BLOCK)
    number = device.asarray(np.array([factor], np.float32))
    return Launch(CPU_SCALE, (out, x, number, rows.count, width, 4 * apart))


def launch_add_bias(
    device: Any, out: Any, bias: Any, rows: Rows, width: int, *, out_stride: int | None = None
) -> Launch:
    """out += bias f32 [width] on the first `rows` rows of `width` f32. CUDA only."""
    assert device.kind == "cuda"
    stride = np.int64(width if out_stride is None else out_stride)
    args = (out, bias, rows.count, np.int32(width), stride)
    return Launch(CUDA_ADD_BIAS, args, cuda_grid(rows, width), CUDA_BLOCK)
