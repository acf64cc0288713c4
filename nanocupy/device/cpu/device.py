"""The CPU device: arrays in aligned memory, graphs as tables that a pool of threads walks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nanocupy.device.cpu import host_memory, jit, thread_pool
from nanocupy.device.cpu.memory import CpuStagingBuffer, Memory
from nanocupy.device.protocols import KernelError, Launch, Tick
from nanocupy.distributed.group import Group

if TYPE_CHECKING:
    from nanocupy.device.cpu.link import Link

MAX_THREADS = 64


def available_threads() -> int:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class CpuDevice:
    """The host's cores and memory.

    Args:
        threads: how many run a graph, the caller's included. Default: one for every CPU that the
            process may use.
        tick: called as `tick(done, total)` while kernels are compiled for the first time.

    Attributes:
        all_threads: whether every run takes all threads, even where others want their cores.
    """

    name = kind = "cpu"
    row_invariant = unified_memory = True
    half_precision = fixed_grids = False

    def __init__(self, threads: int | None = None, tick: Tick | None = None) -> None:
        count = min(available_threads(), MAX_THREADS) if threads is None else threads
        if not 1 <= count <= MAX_THREADS:
            raise ValueError(f"threads={threads}: expected 1 to {MAX_THREADS}")
        self.threads = count
        self.tick = tick
        self.memory = Memory()
        self.link: Link | None = None
        self.all_threads = False
        self._group: Group | None = None

    def empty(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        return self.memory.empty(shape, dtype)

    def asarray(self, array: np.ndarray) -> np.ndarray:
        out = self.memory.empty(array.shape, array.dtype)
        out[...] = array
        return out

    def write(self, to: np.ndarray, array: np.ndarray) -> None:
        to[...] = array

    def read(self, array: np.ndarray) -> np.ndarray:
        return array

    def staging_buffer(self, nbytes: int) -> CpuStagingBuffer:
        return CpuStagingBuffer(self.memory.empty((nbytes,), np.uint8))

    def memory_active(self) -> int:
        return self.memory.active

    def memory_free(self) -> int:
        return host_memory.available()

    def memory_total(self) -> int:
        return host_memory.total()

    def connect(self, group: Group) -> None:
        from nanocupy.device.cpu.link import Link, window_bytes

        counts = [int(n[0]) for n in group.all_gather(np.array([self.threads]))]
        if len(set(counts)) > 1:
            raise ValueError(
                f"the ranks have {counts} threads: they must have as many; give --threads"
            )
        self._group, window = group, group.window(window_bytes(group.size(), self.threads))
        self.link_to(Link(window, group.rank(), group.size(), self.empty((1,), np.int64)))

    def link_to(self, link: Link) -> None:
        """Use this connection. Each thread works with the same thread of every other rank, so
        none may be left out."""
        self.link, self.all_threads = link, True

    def disconnect(self) -> None:
        link, self.link = self.link, None
        if link is not None and self._group is not None:
            self._group.free(link.window)

    def interrupt(self) -> None:
        if (link := self.link) is not None:
            link.abort[0] = 1

    def wait(self) -> None:
        """Do nothing: a graph's `run` waits until it is done."""

    def compile(self, launches: Sequence[Launch]) -> None:
        jit.compile_all([*thread_pool.KERNELS, *(x.kernel for x in launches)], self.tick)

    def progress(self) -> int:
        return thread_pool.shared_pool(self.threads).progress

    def capture(self, launches: Sequence[Launch]) -> CpuGraph:
        return CpuGraph(self, launches, step=len(launches))

    def eager(self, launches: Sequence[Launch]) -> CpuGraph:
        return CpuGraph(self, launches, step=1)


class CpuGraph:
    """A table of (kernel address, argument address), run `step` rows at a time.

    Keeps every array that the table points to alive.
    """

    def __init__(self, device: CpuDevice, launches: Sequence[Launch], step: int) -> None:
        device.compile(launches)
        self._device, self.launches = device, tuple(launches)
        self._pool = thread_pool.shared_pool(device.threads)
        self._step = max(step, 1)
        self._args = [np.array([_word(a) for a in x.args], np.int64) for x in launches]
        rows = [
            (x.kernel.address, a.ctypes.data) for x, a in zip(launches, self._args, strict=True)
        ]
        self._table = np.array(rows, np.int64).reshape(-1, 2)

    def run(self) -> None:
        threads = self._pool.threads if self._device.all_threads else self._pool.governor.threads
        for row in range(0, len(self.launches), self._step):
            count = min(self._step, len(self.launches) - row)
            failed, code = self._pool.run(self._table.ctypes.data + 16 * row, count, threads)
            if code:
                name = self.launches[row + failed].kernel.name
                raise KernelError(
                    f"[{name}] kernel {row + failed} of the graph failed with code {code}"
                )


def _word(argument: object) -> int:
    """An argument as the int64 a kernel reads: the address of an array, or the integer itself."""
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise ValueError(f"kernel argument of shape {argument.shape} is not contiguous")
        return argument.ctypes.data
    if isinstance(argument, int):
        return argument
    raise TypeError(f"kernel argument {argument!r}: expected an array or an int")
