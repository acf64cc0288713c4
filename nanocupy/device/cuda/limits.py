"""The memory bandwidth of a GPU, measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from nanocupy.device.cuda.device import CudaDevice

COPY_BYTES = 256 << 20  # more than any L2 cache


def seconds(device: CudaDevice, run: Callable[[], None], repeats: int) -> float:
    """Seconds of one `run()`: the mean of `repeats` in a row, after a warm-up."""
    run()
    device.wait()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    device.wait()
    return (time.perf_counter() - start) / repeats


def stream_gbs(device: CudaDevice, nbytes: int = COPY_BYTES, repeats: int = 20) -> float:
    """GB/s read and written by a copy within the GPU's memory."""
    source, to = (device.empty((nbytes,), np.uint8) for _ in range(2))
    runtime, stream = device.cupy.cuda.runtime, device.stream.ptr
    ends = to.data.ptr, source.data.ptr

    def copy() -> None:
        with device.current():
            runtime.memcpyAsync(*ends, nbytes, runtime.memcpyDeviceToDevice, stream)

    return 2 * nbytes / seconds(device, copy, repeats) / 1e9
