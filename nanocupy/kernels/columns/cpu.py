"""The launch of columns on a CPU."""

from __future__ import annotations

from typing import Any

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel

KERNEL = CpuKernel("columns:move_columns")


def launch(
    device: Any,
    out: Any,
    x: Any,
    source: Any,
    to: Any,
    rows: Rows,
    *,
    x_stride: int,
    out_stride: int,
) -> Launch:
    """Columns `source` of x to places `to` of out, on the first `rows` rows.

    Args:
        source, to: int32 [count].
        x_stride, out_stride: elements from row to row.
    """
    assert out.dtype == x.dtype and out.dtype.itemsize == 4
    count = source.shape[0]
    args = (out, x, source, to, rows.count, count, 4 * x_stride, 4 * out_stride)
    return Launch(KERNEL, args)
