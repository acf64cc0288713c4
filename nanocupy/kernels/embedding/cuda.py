"""The launch of embedding on CUDA, from floats or affine codes."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import CudaKernel
from nanocupy.kernels.linear.cuda import RowMajorWeight


def launch(
    device: Device, weight: RowMajorWeight, tokens: DeviceArray, out: DeviceArray, rows: Rows, *,
    first: int = 0, vocabulary: int | None = None,
) -> Launch:  # fmt: skip
    """out f32 [rows, k] of tokens int32 [rows]. See `cpu.launch`."""
    form, sizes = weight.format, [weight.n, weight.k]
    if form.bits:
        types = f"{C_TYPES[weight.scales.dtype]}, {form.bits}"
        kernel = CudaKernel("affine_embedding", f"affine_embedding<{types}>")
        sizes.append(form.group)
    else:
        kernel = CudaKernel("embedding", f"embedding<{C_TYPES[weight.data.dtype]}>")
    sizes += first, weight.n if vocabulary is None else vocabulary
    args = (out, *weight.views, tokens, rows.count, *map(np.int32, sizes))
    return cuda_grid.elementwise(kernel, args, rows, weight.k)
