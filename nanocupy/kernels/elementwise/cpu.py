"""Launches of elementwise kernels on a CPU."""

from __future__ import annotations

from typing import Any

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.elementwise import BINARY, UNARY
from nanocupy.kernels.kernel import CpuKernel, float_argument

KERNELS = {name: CpuKernel(f"elementwise:{name}") for name in (*BINARY, *UNARY, "scale")}


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
    return _launch(name, (out, x, y), rows, width, x_stride, y_stride)


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
    return _launch(name, (out, x), rows, width, x_stride)


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
    return _launch("scale", (out, x, float_argument(device, factor)), rows, width, x_stride)


def _launch(
    name: str, arrays: tuple[Any, ...], rows: Rows, width: int, *strides: int | None
) -> Launch:
    apart = (4 * (width if s is None else s) for s in strides)
    return Launch(KERNELS[name], (*arrays, rows.count, width, *apart))
