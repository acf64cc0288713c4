"""Launches of rms_norm and add_rms_norm on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CpuKernel, float_argument
from nanocupy.kernels.quantize import Codes
from nanocupy.kernels.quantize.cpu import scratch_rounding

RMS_NORM = CpuKernel("rms_norm:rms_norm")
ADD_RMS_NORM = CpuKernel("rms_norm:add_rms_norm")


class RmsNormArgs(NamedTuple):
    """Arguments of rms_norm before `ScratchRounding`; strides in bytes."""

    out: DeviceArray
    x: DeviceArray  # f32
    weight: DeviceArray  # f32 [size]
    rows: DeviceArray
    size: int
    eps: DeviceArray
    vectors: int  # of a row, adjacent; 1 where rows are rounded
    x_stride: int
    out_stride: int


class AddRmsNormArgs(NamedTuple):
    """Arguments of add_rms_norm before `ScratchRounding`; rows have no gaps."""

    out_h: DeviceArray  # f32
    out: DeviceArray
    x: DeviceArray  # f32
    residual: DeviceArray  # f32
    weight: DeviceArray  # f32 [size]
    rows: DeviceArray
    size: int
    eps: DeviceArray


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, weight: DeviceArray, eps: float, rows: Rows,
    *,
    vectors: int = 1, x_stride: int | None = None, out_stride: int | None = None,
    codes: Codes | None = None,
) -> Launch:  # fmt: skip
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
    number = float_argument(device, eps)
    args = RmsNormArgs(out, x, weight, rows.count, size, number, vectors, *strides)
    return Launch(RMS_NORM, (*args, *scratch_rounding(device, out, codes, size)))


def launch_add(
    device: Device, out_h: DeviceArray, out: DeviceArray, x: DeviceArray, residual: DeviceArray,
    weight: DeviceArray, eps: float, rows: Rows, *,
    codes: Codes | None = None,
) -> Launch:  # fmt: skip
    """out_h = x + residual, out = rms_norm(out_h), all [rows, K] f32. out_h may be an input.

    Args:
        out: f32 or bf16.
        codes: how rows are rounded, out being uint8.
    """
    size = weight.shape[0]
    numbers = (rows.count, size, float_argument(device, eps))
    args = AddRmsNormArgs(out_h, out, x, residual, weight, *numbers)
    return Launch(ADD_RMS_NORM, (*args, *scratch_rounding(device, out, codes, size)))
