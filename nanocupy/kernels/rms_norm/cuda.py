"""Launches of rms_norm and add_rms_norm on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES
from nanocupy.kernels.cuda_grid import norm_threads
from nanocupy.kernels.kernel import CudaKernel


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, weight: DeviceArray, eps: float, rows: Rows,
    *,
    vectors: int = 1, x_stride: int | None = None, out_stride: int | None = None,
    codes: None = None,
) -> Launch:  # fmt: skip
    """Norm `vectors` adjacent vectors of each row; out is f32, f16 or bf16. See `cpu.launch`."""
    size = weight.shape[0]
    strides = (np.int64(vectors * size if s is None else s) for s in (x_stride, out_stride))
    numbers = (np.int32(size), np.int32(vectors), np.float32(eps), *strides)
    args = (out, x, weight, rows.count, *numbers)
    return _launch("rms_norm", out, args, size, (int(rows), vectors, 1))


def launch_add(
    device: Device, out_h: DeviceArray, out: DeviceArray, x: DeviceArray, residual: DeviceArray,
    weight: DeviceArray, eps: float, rows: Rows, *,
    codes: None = None,
) -> Launch:  # fmt: skip
    """out_h = x + residual, out = rms_norm(out_h); out f32, f16 or bf16. See `cpu.launch_add`."""
    size = weight.shape[0]
    arrays = (out_h, out, x, residual, weight, rows.count)
    args = (*arrays, np.int32(size), np.float32(eps))
    return _launch("add_rms_norm", out, args, size, (int(rows), 1, 1))


def _launch(
    name: str, out: DeviceArray, args: tuple[Any, ...], size: int, grid: tuple[int, int, int]
) -> Launch:
    threads = norm_threads(size)
    kernel = CudaKernel("rms_norm", f"{name}<{C_TYPES[out.dtype]}, {threads}>")
    return Launch(kernel, args, grid, threads)
