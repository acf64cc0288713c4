"""The CPU device: arrays in aligned memory, graphs as tables that a team of threads walks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.device.cpu import jit, threads
from nanocupy.device.cpu.memory import CpuMailbox, Memory
from nanocupy.device.protocols import KernelError, Launch, Tick

MAX_THREADS = 64


def available_threads() -> int:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class CpuDevice:
    """Args:
    threads: threads that run a graph, the caller's included. Default: every CPU the process may
    use. tick: called as `tick(done, total)` while kernels are compiled for the first time.

    Attributes:
        link: what joins it to the devices of other ranks; None: it works alone.
        steady: whether all threads take part in every run, even where others want their cores.
    """

    name = kind = "cpu"

    def __init__(self, threads: int | None = None, tick: Tick | None = None) -> None:
        count = min(available_threads(), MAX_THREADS) if threads is None else threads
        if not 1 <= count <= MAX_THREADS:
            raise ValueError(f"threads={threads}: expected 1 to {MAX_THREADS}")
        self.threads = count
        self.tick = tick
        self.memory = Memory()
        self.link: Any = None
        self.steady = False

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

    def mailbox(self, nbytes: int) -> CpuMailbox:
        return CpuMailbox(self.memory.empty((nbytes,), np.uint8))

    def memory_active(self) -> int:
        return self.memory.active

    def connect(self, link: Any) -> None:
        """Work with the devices of other ranks, over a `kernels.collective.Link`.

        A thread works with its like on other ranks, so none may be left out.
        """
        self.link, self.steady = link, True

    def interrupt(self) -> None:
        """From any thread: whatever waits for other ranks gives up, now and from now on."""
        if self.link is not None:
            self.link.abort[0] = 1

    def compile(self, launches: Sequence[Launch]) -> None:
        """Make the kernels ready; compiles what is not compiled yet."""
        jit.compile_all([*threads.KERNELS, *(x.kernel for x in launches)], self.tick)

    def progress(self) -> int:
        """A number that grows while something runs."""
        return threads.team(self.threads).progress

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
        self._team = threads.team(device.threads)
        self._step = max(step, 1)
        self._args = [np.array([_word(a) for a in x.args], np.int64) for x in launches]
        rows = [
            (x.kernel.address, a.ctypes.data) for x, a in zip(launches, self._args, strict=True)
        ]
        self._table = np.array(rows, np.int64).reshape(-1, 2)

    def run(self) -> None:
        threads = self._team.threads if self._device.steady else self._team.pace.threads
        for row in range(0, len(self.launches), self._step):
            count = min(self._step, len(self.launches) - row)
            failed, code = self._team.run(self._table.ctypes.data + 16 * row, count, threads)
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
