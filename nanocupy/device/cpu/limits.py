"""What this machine can do at most, measured: memory bandwidth and arithmetic.

A figure of ours is quoted beside the limit that the same threads reached in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nanocupy.device.base import Launch
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.cpu.jit import Kernel

READ, FMA, DOT = (Kernel(f"nanocupy.device.cpu.peaks:{name}") for name in ("read", "fma", "dot"))
STREAM_BYTES = 256 << 20  # far more than any cache
STEPS = 200_000


def best_of(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def stream(device: CpuDevice, nbytes: int = STREAM_BYTES) -> Any:
    """A graph that reads `nbytes` of memory once, in order."""
    memory = device.empty((nbytes,), np.uint8)
    memory[:] = 1  # else every page is the same page of zeros
    out = device.empty((16 * device.threads,), np.int32)
    return device.capture([Launch(READ, (memory, nbytes, out))])


def stream_gbs(threads: int, repeats: int = 5) -> float:
    """GB/s of a streaming read by `threads` threads."""
    return STREAM_BYTES / best_of(stream(CpuDevice(threads)).run, repeats) / 1e9


def fma_gflops(device: CpuDevice, repeats: int = 5) -> float:
    """GFLOP/s of float32 fused multiply-adds (two operations each), all in registers."""
    return _peak(device, FMA, 2 * 16 * 12, repeats)


def dot_gops(device: CpuDevice, repeats: int = 5) -> float:
    """Giga-operations/s of byte dot products (multiply and add), all in registers."""
    return _peak(device, DOT, 2 * 64 * 12, repeats)


def _peak(device: CpuDevice, kernel: Kernel, operations: int, repeats: int) -> float:
    out = device.empty((16 * device.threads,), np.int32)
    graph = device.capture([Launch(kernel, (STEPS, out))])
    return operations * STEPS * device.threads / best_of(graph.run, repeats) / 1e9
