"""Aligned memory, counted, so that "nothing leaks" is a number."""

from __future__ import annotations

import itertools
import weakref

import numpy as np

CACHE_LINE = 64
HUGE_PAGE = 2 << 20


class Memory:
    """Allocates zeroed, aligned arrays and knows how many bytes are alive. Any thread may ask.

    Large arrays start on a huge-page boundary so that the kernel can back them with huge pages.
    """

    def __init__(self) -> None:
        self._alive: dict[int, int] = {}  # bytes by allocation: a sum could lose a thread's part
        self._ids = itertools.count()

    @property
    def active(self) -> int:
        """Bytes in use."""
        return sum(self._alive.copy().values())

    def empty(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        """A zeroed array of `shape`, its first byte on a cache line."""
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        align = HUGE_PAGE if nbytes >= 2 * HUGE_PAGE else CACHE_LINE
        raw = np.zeros(nbytes + align, np.uint8)
        start = -raw.ctypes.data % align
        self._alive[id := next(self._ids)] = nbytes
        weakref.finalize(raw, self._alive.pop, id)
        return raw[start : start + nbytes].view(kind).reshape(shape)


class CpuMailbox:
    """Host and device are one memory: nothing travels."""

    def __init__(self, memory: np.ndarray) -> None:
        self.host = self.device = memory

    def send(self, nbytes: int) -> None:
        pass

    def receive(self, nbytes: int) -> None:
        pass
