"""Aligned memory of the host, counted so that tests can find leaks."""

from __future__ import annotations

import itertools
import threading
import weakref

import numpy as np

CACHE_LINE = 64
HUGE_PAGE = 2 << 20
SLAB = 32 * HUGE_PAGE


class Memory:
    """Allocates zeroed, aligned arrays and knows how many bytes are alive. Any thread may ask.

    Large arrays start on a huge-page boundary so that the kernel can back them with huge pages.
    """

    def __init__(self) -> None:
        self._alive: dict[int, int] = {}  # bytes by allocation: adding to a sum is not thread-safe
        self._ids = itertools.count()
        self._slab, self._lock = memoryview(b""), threading.Lock()

    @property
    def active(self) -> int:
        """Bytes in use."""
        return sum(self._alive.copy().values())

    def empty(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        """A zeroed array of `shape`, its first byte on a cache line."""
        nbytes = _size(shape, dtype)
        return self._counted(_zeros(nbytes), nbytes).view(dtype).reshape(shape)

    def persistent(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        """As `empty`, for arrays that are freed together, such as a model's weights.

        Arrays too small for huge pages of their own share slabs of huge pages; a slab is freed with
        its last array. Streaming weights from pages of 4 KB is a third slower than from huge pages:
        each page is looked up, and nothing is read ahead past its end.
        """
        nbytes = _size(shape, dtype)
        if nbytes >= SLAB:
            return self.empty(shape, dtype)
        with self._lock:
            if len(self._slab) < nbytes:
                self._slab = _zeros(SLAB).data
            part, self._slab = (
                self._slab[:nbytes],
                self._slab[-(-nbytes // CACHE_LINE) * CACHE_LINE :],
            )
        return self._counted(np.frombuffer(part, np.uint8), nbytes).view(dtype).reshape(shape)

    def _counted(self, raw: np.ndarray, nbytes: int) -> np.ndarray:
        """Count the bytes for as long as `raw` or a view of it is alive."""
        self._alive[id := next(self._ids)] = nbytes
        weakref.finalize(raw, self._alive.pop, id)
        return raw


def _size(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _zeros(nbytes: int) -> np.ndarray:
    """Aligned bytes, as an array that is the base of its views."""
    align = HUGE_PAGE if nbytes >= 2 * HUGE_PAGE else CACHE_LINE
    raw = np.zeros(nbytes + align, np.uint8)
    start = -raw.ctypes.data % align
    return np.frombuffer(raw.data[start : start + nbytes], np.uint8)


class CpuStagingBuffer:
    """Host and device are one memory: nothing is copied."""

    def __init__(self, memory: np.ndarray) -> None:
        self.host = self.device = memory

    def send(self, nbytes: int) -> None:
        pass

    def receive(self, nbytes: int) -> None:
        pass
