"""The limits of this machine, measured: memory bandwidth and arithmetic.

Benchmarks report speeds beside the limit that the same threads reached in the same run. A device
that is measured uses all threads from then on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nanocupy.device.cpu import target
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.cpu.jit import Kernel
from nanocupy.device.protocols import Launch

READ, FMA, DOT, DOT_BYTES, BF16 = (
    Kernel(f"nanocupy.device.cpu.peaks:{name}")
    for name in ("read", "fma", "dot", "dot_bytes", "bf16")
)
STREAM_BYTES = 256 << 20  # far more than any cache
STEPS = 200_000


def best_of(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs, after a warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def stream(device: CpuDevice, nbytes: int = STREAM_BYTES) -> Any:
    """A graph that reads `nbytes` of memory once, in order."""
    device.all_threads = True
    memory = device.empty((nbytes,), np.uint8)
    memory[:] = 1  # else every page is the same page of zeros
    out = device.empty((16 * device.threads,), np.int32)
    return device.capture([Launch(READ, (memory, nbytes, out))])


def stream_gbs(threads: int, repeats: int = 5) -> float:
    """GB/s of a streaming read by `threads` threads."""
    return STREAM_BYTES / best_of(stream(CpuDevice(threads)).run, repeats) / 1e9


def chains() -> int:
    """How many chains of vectors hide an instruction's latency and fit the registers."""
    return 12 if target.level() == "avx512" else 6


def peak(device: CpuDevice, kernel: Kernel) -> tuple[Any, int]:
    """(a graph of `kernel`, all in registers; how many multiplications and additions it does)."""
    device.all_threads = True
    out = device.empty((16 * device.threads,), np.int32)
    lanes = {FMA: 16, DOT_BYTES: 64}.get(kernel, 32)
    return device.capture(
        [Launch(kernel, (STEPS, out))]
    ), 2 * lanes * chains() * STEPS * device.threads


def arithmetic() -> dict[str, Kernel]:
    """The kernels of this CPU's kinds of arithmetic, by name."""
    found = {"fma": FMA, "dot": DOT}
    if target.dots_bytes(4):
        found["bytes"] = DOT_BYTES
    if target.dots_bf16():
        found["bf16"] = BF16
    return found
