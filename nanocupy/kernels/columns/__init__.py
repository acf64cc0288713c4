"""columns: out[r, to[j]] = x[r, from[j]], what a model moves about inside rows.

x, out rows of f32 or int32, from, to int32 [count], all inside the rows: whoever makes them sees to
that. Nothing else of out is touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel, CudaKernel

CPU, CUDA = CpuKernel("columns:move_columns"), CudaKernel("columns", "move_columns")
_BLOCK = 128


def reference(out: np.ndarray, x: np.ndarray, source: np.ndarray, to: np.ndarray) -> np.ndarray:
    """out with columns `source` of x in places `to`."""
    out = out.copy()
    out[:, to] = x[:, source]
    return out


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
    count, arrays = source.shape[0], (out, x, source, to, rows.count)
    if device.kind == "cuda":
        args = (*arrays, np.int32(count), np.int64(x_stride), np.int64(out_stride))
        return Launch(CUDA, args, (int(rows), -(-count // _BLOCK), 1), _BLOCK)
    return Launch(CPU, (*arrays, count, 4 * x_stride, 4 * out_stride))
