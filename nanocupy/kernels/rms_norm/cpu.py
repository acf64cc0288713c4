"""Launches of rms_norm and add_rms_norm on a CPU."""

from __future__ import annotations

from typing import Any

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel, float_argument
from nanocupy.kernels.quantize import Codes
from nanocupy.kernels.quantize.cpu import arguments

RMS_NORM = CpuKernel("rms_norm:rms_norm")
ADD_RMS_NORM = CpuKernel("rms_norm:add_rms_norm")


def launch(
    device: Any,
    out: Any,
    x: Any,
    weight: Any,
    eps: float,
    rows: Rows,
    *,
    vectors: int = 1,
    x_stride: int | None = None,
    out_stride: int | None = None,
    codes: Codes | None = None,
) -> Launch:
    """Norm `vectors` adjacent vectors of each row (heads, say; 1 for a plain norm).

    Args:
        out: f32 or bf16; if f32, may be x.
        codes: how rows of one vector are rounded, out being uint8 rows without gaps.
        weight: f32 [K].
        x_stride, out_stride: elements from row to row. Default: vectors * K.
    """
    assert vectors == 1 or out.dtype.itemsize == 4
    size = weight.shape[0]
    strides = (4 * (vectors * size if s is None else s) for s in (x_stride, out_stride))
    numbers = (rows.count, size, float_argument(device, eps), vectors, *strides)
    finish = arguments(device, out, codes, size)
    return Launch(RMS_NORM, (out, x, weight, *numbers, *finish))


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
    codes: Codes | None = None,
) -> Launch:
    """out_h = x + residual, out = rms_norm(out_h), all [rows, K] f32. out_h may be an input.

    Args:
        out: f32 or bf16.
        codes: how rows are rounded, out being uint8.
    """
    size = weight.shape[0]
    arrays = (out_h, out, x, residual, weight, rows.count)
    finish = arguments(device, out, codes, size)
    return Launch(ADD_RMS_NORM, (*arrays, size, float_argument(device, eps), *finish))
