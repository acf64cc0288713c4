"""Elementwise operations on f32 rows: add x + y, mul x * y, silu x * sigmoid(x).

out, x, y [rows, width] f32; out may be x or y. Rows of x and y may lie apart: a stride in elements
says how far (default: width).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch
from nanocupy.kernels.base import CpuKernel

CPU_ADD, CPU_MUL, CPU_SILU = (CpuKernel(f"elementwise:{op}") for op in ("add", "mul", "silu"))
CUDA_ADD, CUDA_MUL, CUDA_SILU = "add", "mul", "silu"


def add_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + y


def mul_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * y


def silu_reference(x: np.ndarray) -> np.ndarray:
    """x f32 -> f32: x / (1 + e) or, where x < 0, x*e / (1 + e), with e = exp(-|x|)."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, x * e, x) / (np.float32(1) + e)


def _launch(
    kernel: CpuKernel, out: Any, inputs: Any, rows: Any, width: int, strides: Any
) -> Launch:
    apart = [4 * (width if s is None else s) for s in strides]
    return Launch(kernel, (out, *inputs, rows, width, *apart))


def launch_add(
    out: Any,
    x: Any,
    y: Any,
    rows: Any,
    width: int,
    *,
    x_stride: int | None = None,
    y_stride: int | None = None,
) -> Launch:
    """out = x + y on the first `rows` (int64 [1]) rows of `width` f32."""
    return _launch(CPU_ADD, out, (x, y), rows, width, (x_stride, y_stride))


def launch_mul(
    out: Any,
    x: Any,
    y: Any,
    rows: Any,
    width: int,
    *,
    x_stride: int | None = None,
    y_stride: int | None = None,
) -> Launch:
    """out = x * y on the first `rows` (int64 [1]) rows of `width` f32."""
    return _launch(CPU_MUL, out, (x, y), rows, width, (x_stride, y_stride))


def launch_silu(out: Any, x: Any, rows: Any, width: int, *, x_stride: int | None = None) -> Launch:
    """out = silu(x) on the first `rows` (int64 [1]) rows of `width` f32."""
    return _launch(CPU_SILU, out, (x,), rows, width, (x_stride,))
