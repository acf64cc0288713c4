"""What the stand-ins stand on: a GPU's memory, the work that waits, a stream that captures."""

from __future__ import annotations

import ctypes
import threading
import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from nanocupy.device.emulated import errors

ALIGN = 256  # of allocations, as CUDA has it
POISON = 0xFF  # bytes of memory that nobody wrote: NaN as a float of any size, -1 as an int
THREAD_LOCAL, RELAXED = 1, 2  # capture modes

Work = Callable[[], Any]
"""Something to do on a stream. False: it waits for another GPU, and is to be called again."""


class Capture:
    """What a stream is recording. `broken`: by something that cannot be recorded."""

    def __init__(self, stream: int, mode: int) -> None:
        self.stream, self.mode, self.thread = stream, mode, threading.get_ident()
        self.work: list[Work] = []
        self.broken = False


class Ranges:
    """Pieces of memory, to tell which addresses are in one."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}

    def add(self, start: int, nbytes: int) -> None:
        insort(self._starts, start)
        self._sizes[start] = nbytes

    def remove(self, start: int) -> None:
        del self._starts[bisect_right(self._starts, start) - 1]
        del self._sizes[start]

    def holds(self, start: int, nbytes: int) -> bool:
        """Whether all of these bytes lie in one piece."""
        index = bisect_right(self._starts, start) - 1
        if index < 0:
            return False
        first = self._starts[index]
        return start + nbytes <= first + self._sizes[first]


class Gpu:
    """Args:
    memory: bytes it has.
    order, seed: of the threads and blocks of a kernel: see `build.Library.launch`.
    late: work waits until somebody waits for it, as on a GPU that is slow; else it is done at once.
    """

    def __init__(self, memory: int, order: int = 0, seed: int = 1, late: bool = False) -> None:
        self.memory, self.order, self.seed, self.late = memory, order, seed, late
        self.reserved = 0  # bytes that pools hold
        self.device, self.pinned = Ranges(), Ranges()
        self.streams: set[int] = set()
        self.capture: Capture | None = None
        self.modules: dict[str, Any] = {}
        self.handles = count(0x1000, 16)
        self.links: list[Any] = []  # communicators, with other GPUs
        self.done = 0  # how much work
        self._waiting: deque[Work] = deque()
        self._freed: list[int] = []
        self._submitted = 0
        self._running = False
        self._failed: Exception | None = None

    # ---- memory

    def free(self, address: int) -> None:
        """Give memory back, after the work that was there before."""
        self._freed.append(address)
        self._sweep()

    def _sweep(self) -> None:
        while self._freed and not self._running and not self._waiting:
            address = self._freed.pop()
            self.device.remove(address)
            _libc().free(ctypes.c_void_p(address))

    def check(self, address: int, nbytes: int) -> None:
        """Refuse what is not in one allocation that is alive."""
        if nbytes and not self.device.holds(address, nbytes):
            raise errors.illegal_address(address, nbytes)

    # ---- work

    def submit(self, stream: int, work: Work) -> None:
        """Put work on a stream: all streams of this GPU run in the order of submission."""
        if stream not in self.streams:
            raise errors.CUDARuntimeError(
                "cudaErrorInvalidResourceHandle: no such stream, or it was destroyed"
            )
        if self.capture and self.capture.stream == stream:
            self.capture.work.append(work)
            return
        self._waiting.append(work)
        self._submitted += 1
        if not self.late and len(self._waiting) == 1:  # else what is first waits for another GPU
            self._advance(self._submitted)

    def ticket(self) -> int:
        """What `finish` takes to wait for all that is submitted by now."""
        return self._submitted

    def finish(self, ticket: int | None = None) -> None:
        """Do what waits. An error ends it, and what waited behind is dropped.

        Where other GPUs keep it waiting for ever, a real one would hang; here that is an error.
        """
        if (failed := self._failed) is not None:
            self._failed = None
            raise failed
        end = self._submitted if ticket is None else ticket
        while not self._running and not self._advance(end):
            for link in self.links:
                link.check_async_error()

    def query(self) -> bool | None:
        """Do what can be done now; whether that is all. None: it failed, as `finish` will say."""
        if self._failed is None:
            try:
                return self._advance(self._submitted)
            except Exception as error:
                self._failed = error
        return None

    def _advance(self, end: int) -> bool:
        """Do what waits, up to what waits for another GPU; whether all is done."""
        if self._running:
            return False
        self._running = True
        try:
            while self.done < end:
                if self._waiting[0]() is False:
                    return False
                self._waiting.popleft()
                self.done += 1
        except BaseException:
            self._waiting.clear()
            self.done = self._submitted
            raise
        finally:
            self._running = False
            self._sweep()
        return True

    # ---- capture

    def unsafe(self) -> None:
        """Refuse what may not happen while a stream captures: memory, modules, waiting."""
        capture = self.capture
        if capture is None or capture.mode == RELAXED:
            return
        if capture.mode != THREAD_LOCAL or capture.thread == threading.get_ident():
            self.break_capture()

    def break_capture(self) -> None:
        assert self.capture is not None
        self.capture.broken = True
        raise errors.capturing()


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)


class Block:
    """An allocation, poisoned. It begins and ends where it says: sanitizers see one byte more."""

    def __init__(self, gpu: Gpu, nbytes: int) -> None:
        address = ctypes.c_void_p()
        if _libc().posix_memalign(ctypes.byref(address), ALIGN, ctypes.c_size_t(nbytes)):
            raise errors.OutOfMemoryError(f"this machine has no {nbytes:,} bytes left")
        assert address.value
        self.ptr, self.size = address.value, nbytes
        ctypes.memset(self.ptr, POISON, nbytes)
        gpu.device.add(self.ptr, nbytes)
        weakref.finalize(self, gpu.free, self.ptr).atexit = False


class _At:
    """Memory at an address, for NumPy."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {
            "data": (address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3,
        }  # fmt: skip


def at(address: int, nbytes: int) -> np.ndarray:
    """The memory at an address as uint8 [nbytes]. Keeps nothing alive."""
    return np.asarray(_At(address, nbytes)) if nbytes else np.empty(0, np.uint8)
