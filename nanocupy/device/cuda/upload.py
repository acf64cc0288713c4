"""Copies from host memory to device memory at the full speed of the bus.

The driver copies ordinary memory slowly. Here two pinned buffers take turns: some threads fill one
while the other is copied to the device.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

CHUNK = 16 << 20  # bytes of a buffer; a power of two, as CuPy rounds up to one
PART = 1 << 20  # least bytes for a thread
THREADS = min(4, os.cpu_count() or 1)  # one core copies slower than PCIe


def pinned(cupy: Any, nbytes: int) -> np.ndarray:
    """Page-locked host memory, uint8 [nbytes], not cleared."""
    memory = cupy.cuda.alloc_pinned_memory(max(nbytes, 1))
    return np.frombuffer(memory, np.uint8, nbytes)


class Uploader:
    """Copies host arrays to the device, in order with what else runs on the stream."""

    def __init__(self, cupy: Any, stream: Any) -> None:
        self._cupy, self._stream = cupy, stream
        self._turn = 0

    @cached_property
    def _buffers(self) -> list[tuple[np.ndarray, Any]]:
        """Pinned buffers, each with an event for when it has been copied."""
        event = self._cupy.cuda.Event
        return [
            (pinned(self._cupy, CHUNK), event(block=True, disable_timing=True)) for _ in range(2)
        ]

    def write(self, address: int, source: np.ndarray) -> None:
        """Copy uint8 [n] to a device address. The source may change once this returns."""
        runtime = self._cupy.cuda.runtime
        for start in range(0, len(source), CHUNK):
            part = source[start : start + CHUNK]
            buffer, read = self._buffers[self._turn]
            self._turn ^= 1
            read.synchronize()
            self._fill(buffer, part)
            runtime.memcpyAsync(
                address + start, buffer.ctypes.data, len(part), runtime.memcpyHostToDevice,
                self._stream.ptr,
            )  # fmt: skip
            read.record(self._stream)

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS)

    def _fill(self, buffer: np.ndarray, source: np.ndarray) -> None:
        """Copy with several threads: NumPy releases the GIL."""
        size = max(PART, -(-len(source) // THREADS))

        def copy(start: int) -> None:
            part = source[start : start + size]
            buffer[start : start + len(part)] = part

        if len(source) <= size:
            copy(0)
        else:
            list(self._workers.map(copy, range(0, len(source), size)))
