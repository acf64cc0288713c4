"""rms_norm: y = x / sqrt(mean(x^2) + eps) * weight, over vectors of K; add_rms_norm adds first.

    x, y [rows, vectors, K] f32, weight [K] f32

Sixteen lanes sum squares along K, each step one fma; a tree joins the lanes. The rest is rounded
step by step: mean, + eps, square root, reciprocal, times x, times weight. K is any number >= 1.
y may be rounded as it is written: to bf16, or to codes (`kernels.quantize`). On CUDA a block sums a
vector, in an order that depends on K only; y may be f16 or bf16.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import quantize
from nanocupy.kernels.kernel import C_TYPES, CpuKernel, CudaKernel

CPU = CpuKernel("rms_norm:rms_norm")
CPU_ADD = CpuKernel("rms_norm:add_rms_norm")


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x f32 [..., K], weight f32 [K] -> f32 [..., K]."""
    size = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-size // 16) * 16), np.float64)
    padded[..., :size] = x
    squares = np.zeros((*x.shape[:-1], 16), np.float32)
    for start in range(0, size, 16):
        squares = (padded[..., start : start + 16] ** 2 + squares).astype(np.float32)
    mean = tree_sum(squares) / np.float32(size)
    scale = np.float32(1) / np.sqrt(mean + np.float32(eps))
    return x * scale[..., None] * weight


def tree_sum(lanes: np.ndarray) -> np.ndarray:
    """Sum of 16 lanes in the tree of `vsum`: lane i joins lane i + half, four times."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def add_reference(
    x: np.ndarray, residual: np.ndarray, weight: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """(h, rms_norm(h)) with h = x + residual."""
    h = x + residual
    return h, reference(h, weight, eps)


def launch(
    device: Any,
    out: Any,
    x: Any,
    weight: Any,
    eps: float,
    rows: Rows,
    *,
    vectors: int = 1,
    x_offset: int = 0,
    x_stride: int | None = None,
    out_offset: int = 0,
    out_stride: int | None = None,
    codes: quantize.Codes | None = None,
) -> Launch:
    """Norm `vectors` adjacent vectors of each row (heads, say; 1 for a plain norm).

    Args:
        out: f32 or bf16 buffer; if f32, may be x. On CUDA also f16.
        codes: how rows of one vector are rounded, out being uint8 rows without gaps.
        weight: f32 [K].
        x_offset, out_offset: where row 0 starts in its buffer, in elements.
        x_stride, out_stride: elements from row to row. Default: vectors * K.
    """
    size = weight.shape[0]
    strides = [vectors * size if s is None else s for s in (x_stride, out_stride)]
    if device.kind == "cuda":
        out, x = out.reshape(-1)[out_offset:], x.reshape(-1)[x_offset:]
        numbers = (np.int32(size), np.int32(vectors), np.float32(eps), *map(np.int64, strides))
        args = (out, x, weight, rows.count, *numbers)
        return _cuda("rms_norm", out, args, size, (int(rows), vectors, 1))
    assert vectors == 1 or out.dtype == np.float32
    numbers = (rows.count, size, _scalar(device, eps), vectors)
    place = [4 * s for s in (*strides, x_offset, out_offset)]
    finish = quantize.arguments(device, out, codes, size)
    return Launch(CPU, (out, x, weight, *numbers, *place, *finish))


def launch_add(
    device: Any,
    out_h: Any,
    out: Any,
    x: Any,
    residual: Any,
    weight: Any,
    eps: float,
    rows: Rows,
    *,
    codes: quantize.Codes | None = None,
) -> Launch:
    """out_h = x + residual, out = rms_norm(out_h), all [rows, K] f32. out_h may be an input.

    Args:
        out: f32 or bf16; on CUDA also f16.
        codes: how rows are rounded, out being uint8.
    """
    size = weight.shape[0]
    arrays = (out_h, out, x, residual, weight, rows.count)
    if device.kind == "cuda":
        args = (*arrays, np.int32(size), np.float32(eps))
        return _cuda("add_rms_norm", out, args, size, (int(rows), 1, 1))
    finish = quantize.arguments(device, out, codes, size)
    return Launch(CPU_ADD, (*arrays, size, _scalar(device, eps), *finish))


def _cuda(
    name: str, out: Any, args: tuple[Any, ...], size: int, grid: tuple[int, int, int]
) -> Launch:
    """One block a vector: a warp for a head, more threads for more elements."""
    threads = 32 if size <= 128 else 128 if size <= 1024 else 256 if size <= 4096 else 512
    kernel = CudaKernel("rms_norm", f"{name}<{C_TYPES[out.dtype]}, {threads}>")
    return Launch(kernel, args, grid, threads)


def _scalar(device: Any, value: float) -> Any:
    return device.asarray(np.array([value], np.float32))
