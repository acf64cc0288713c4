"""Memory of evaluated arrays on the CPU: figures, limits, and a cache of large blocks.

The memory of an array goes to the cache when nobody refers to it, so that the next result of its
size reuses its pages; a limit or `clear` frees it. The figures for users are in
`core.runtime.memory_stats`, those of an engine in its device (`memory_active`).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from functools import cache
from typing import Any

import numpy as np

LARGE = 1 << 17  # bytes from which pages of the system's, and not the heap, are what is waited for
ALIGN = 64
_FOLD = 4096  # events kept before they are counted


class _Block:
    """A block of memory that goes to the cache when the last array on it is gone."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__
        HEAP.events.append((id(self), memory.nbytes))

    def __del__(self) -> None:
        HEAP.events.append((id(self), -self.memory.nbytes))
        HEAP.give(self.memory)


class Share(tuple[int, int]):
    """(id of the memory's owner, bytes): a node's share, for as long as the node has a value."""

    def __del__(self) -> None:
        HEAP.events.append((self[0], -self[1]))


class Heap:
    """Counts memory in use and its peak, and caches free blocks. Threads may share it.

    Attributes:
        events: (whose memory, bytes, negative where it is let go of), in order, not counted yet:
            appending is atomic, adding up is not.
    """

    def __init__(self) -> None:
        self.events: deque[tuple[int, int]] = deque()
        self._lock = threading.RLock()
        self._holders: dict[int, int] = {}
        self._free: dict[int, list[np.ndarray]] = {}
        self._active = self._peak = self._cached = 0
        self._limits: dict[str, int] = {}

    def limit(self, name: str) -> int:
        """Return the limit of "memory" or "cache": as set, else a part of the machine's memory."""
        if name not in self._limits:
            self._limits[name] = _machine() * 3 // 2 if name == "memory" else _machine() // 8
        return self._limits[name]

    def set_limit(self, name: str, limit: int) -> int:
        """Set a limit; return the previous one."""
        if not isinstance(limit, int) or limit < 0:
            raise ValueError(
                f"[set_{name}_limit] limit={limit!r}: expected a number of bytes, 0 or more"
            )
        old, self._limits[name] = self.limit(name), limit
        if name == "cache" and self._cached > limit:
            self.clear()
        return old

    # ---- figures

    def fold(self) -> None:
        """Count the events."""
        with self._lock:
            while self.events:
                key, nbytes = self.events.popleft()
                count = self._holders.get(key, 0) + (1 if nbytes >= 0 else -1)
                if count == (1 if nbytes >= 0 else 0):
                    self._active += nbytes
                    self._peak = max(self._peak, self._active)
                if count > 0:
                    self._holders[key] = count
                else:
                    self._holders.pop(key, None)

    @property
    def active(self) -> int:
        self.fold()
        return self._active

    @property
    def peak(self) -> int:
        self.fold()
        return self._peak

    def reset_peak(self) -> None:
        self.fold()
        self._peak = self._active

    @property
    def cached(self) -> int:
        return self._cached

    # ---- memory

    def take(self, nbytes: int) -> np.ndarray:
        """Return bytes, perhaps from the cache; they go back there when the array is gone."""
        need = -(-nbytes // ALIGN) * ALIGN
        with self._lock:
            kept = self._free.get(need)
            if kept:
                self._cached -= need
                return np.asarray(_Block(kept.pop()))
        if self.active + self._cached + need > self.limit("memory"):
            self.clear()
        raw = np.empty(need + ALIGN, np.uint8)
        start = -raw.ctypes.data % ALIGN
        return np.asarray(_Block(raw[start : start + need]))

    def give(self, piece: np.ndarray) -> None:
        with self._lock:
            if self._cached + piece.nbytes <= self.limit("cache"):
                self._free.setdefault(piece.nbytes, []).append(piece)
                self._cached += piece.nbytes

    def clear(self) -> None:
        with self._lock:
            self._free.clear()
            self._cached = 0


@cache
def _machine() -> int:
    """Return the bytes of the machine's memory."""
    import psutil

    return int(psutil.virtual_memory().total)


HEAP = Heap()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Return an uninitialised array; a large one may reuse a cached block."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LARGE:
        return np.empty(shape, dtype)
    return HEAP.take(nbytes)[:nbytes].view(dtype).reshape(shape)


def is_owned(value: np.ndarray) -> bool:
    """Whether nobody but NumPy arrays can refer to the memory that a value lies in."""
    root: Any = value if value.base is None else value.base
    if not isinstance(root, np.ndarray):
        return False
    under: Any = root.base
    return under is None or type(under) is _Block


def track(value: np.ndarray) -> Share | None:
    """Count the memory of a value, once however many arrays share it.

    Returns:
        The share, which must live as long as the value; None for memory that counts itself.
    """
    root: Any = value
    while isinstance(root.base, np.ndarray):
        root = root.base
    if type(root.base) is _Block or root.nbytes == 0:
        return None
    if len(HEAP.events) > _FOLD:
        HEAP.fold()
    share = id(root), root.nbytes
    HEAP.events.append(share)
    return Share(share)
