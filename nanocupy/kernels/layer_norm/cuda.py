"""The launch of layer_norm on CUDA."""

from __future__ import annotations

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.cuda_grid import norm_threads
from nanocupy.kernels.kernel import CudaKernel


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, weight: DeviceArray, bias: DeviceArray,
    eps: float, rows: Rows, size: int, *,
    x_stride: int | None = None,
) -> Launch:  # fmt: skip
    """Norm the first `rows` rows of `size` f32. See `cpu.launch`."""
    threads, stride = norm_threads(size), size if x_stride is None else x_stride
    numbers = (np.int32(size), np.float32(eps), np.int64(stride))
    args = (out, x, weight, bias, rows.count, *numbers)
    kernel = CudaKernel("layer_norm", f"layer_norm<{threads}>")
    return Launch(kernel, args, (int(rows), 1, 1), threads)
