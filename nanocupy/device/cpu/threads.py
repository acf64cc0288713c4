"""The thread team: workers that walk captured tables beside the calling thread.

A worker is a Python thread inside one compiled loop that never takes the GIL; it spins for about a
millisecond after a run and then parks on an event, so an idle engine costs nothing and the same
code works on every operating system. One that a run leaves out (`pace.py`) parks at once. A fork
leaves the child without workers; they start anew at the child's first run.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import threading
import weakref
from typing import Any

import numpy as np

from nanocupy.device.cpu.jit import Kernel
from nanocupy.device.cpu.memory import Memory
from nanocupy.device.cpu.pace import Pace, cpu_time

_START, _STOP, _TABLE, _ROWS, _SPIN, _STATUS, _IDLE, _FLAGS = (8 * field for field in range(8))
_ABI = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
WORKER = Kernel("nanocupy.device.cpu.team:worker")
ANNOUNCE = Kernel("nanocupy.device.cpu.team:announce")
RUN = Kernel("nanocupy.device.cpu.team:run")
KERNELS = (WORKER, ANNOUNCE, RUN)


class Team:
    """`threads` threads, the caller's included, that run tables together.

    Args:
        threads: size of the team.
        spin: tries at a barrier before a thread yields its core.
        idle: tries of an idle worker before it parks (20,000 is about a millisecond).

    Attributes:
        pace: how many threads are worth having at present.
    """

    def __init__(self, threads: int, spin: int = 1000, idle: int = 20_000) -> None:
        self.threads, self._spin, self._idle = threads, spin, idle
        self._forget()
        self._walk, self._store = _ABI(RUN.address), _ABI(ANNOUNCE.address)
        atexit.register(_call, weakref.WeakMethod(self.close))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                after_in_child=functools.partial(_call, weakref.WeakMethod(self._forget))
            )

    def run(self, table: int, rows: int, threads: int) -> tuple[int, int]:
        """Run `rows` rows of the table at an address by so many threads; (0, 0), or (failed row,
        code)."""
        with self._lock:
            try:
                if len(self._workers) < self.threads - 1:
                    self._start()
                control = self._control
                control[_TABLE], control[_ROWS], control[_STATUS] = table, rows, 0
                control[_FLAGS::8] = control[_FLAGS]  # who was left out is as far as the others
                self.pace.start(threads)
                self._announce(self._news, ((self._news[1] >> 8) + 1 << 8) | threads)
                for event in self._wake[: threads - 1]:
                    event.set()
                status = self._walk(self._args.ctypes.data, 0, threads)
                self.pace.stop()
            except BaseException:  # no more threads to be had, or Ctrl-C: nobody may wait for us
                self._leave()
                raise
        return (0, 0) if status == 0 else ((status >> 8) - 1, status & 255)

    @property
    def progress(self) -> int:
        """How many kernels have been run: it grows while a table is walked."""
        return int(self._control[_FLAGS])

    def close(self) -> None:
        """Stop the workers. The next run starts new ones."""
        with self._lock:
            self._leave()

    def _forget(self) -> None:
        """A team without workers: at first, and in the child of a fork."""
        self._lock = threading.Lock()
        self._renew()

    def _renew(self) -> None:
        """What belongs to one generation of workers."""
        self._workers: list[threading.Thread] = []
        self._wake = [threading.Event() for _ in range(self.threads - 1)]
        self.pace = Pace(self.threads)
        self._control = Memory().empty((_FLAGS + 8 * self.threads,), np.int64)
        self._control[_SPIN], self._control[_IDLE] = self._spin, self._idle
        self._args = np.array([self._control.ctypes.data], np.int64)
        self._news = (ctypes.c_int64 * 2)(self._control.ctypes.data, 0)  # of ANNOUNCE

    def _announce(self, news: Any, start: int) -> None:
        """Change START by an atomic store: whoever sees it sees what was written before it.

        NumPy's would be a plain one, which only x86 keeps in order.
        """
        news[1] = start
        self._store(ctypes.addressof(news), 0, 1)

    def _leave(self) -> None:
        """Part from the workers, whatever they are at; even in a run that lacks the caller."""
        control, wake, workers, news = self._control, self._wake, self._workers, self._news
        self._renew()
        control[_STATUS] = control[_STOP] = 1
        self._announce(news, news[1] + 1)
        for event in wake:
            event.set()
        while waiting := [worker for worker in workers if worker.is_alive()]:
            control[_FLAGS::8] = np.iinfo(np.int64).max  # opens every barrier
            waiting[0].join(0.001)

    def _start(self) -> None:
        for thread, wake in enumerate(self._wake, 1):
            args = self._control, wake, thread, self.threads
            worker = threading.Thread(None, _serve, f"nanocupy-{thread}", args, daemon=True)
            worker.start()
            self._workers.append(worker)
            self.pace.workers.append(cpu_time(worker))


def _serve(control: np.ndarray, wake: threading.Event, thread: int, threads: int) -> None:
    """A worker: in the compiled loop while there is work, parked while there is none."""
    worker = _ABI(WORKER.address)
    args = np.array([control.ctypes.data, 0], np.int64)
    while not control[_STOP]:
        args[1] = worker(args.ctypes.data, thread, threads)
        wake.clear()
        if control[_START] == args[1] and not control[_STOP]:
            wake.wait()


def _call(method: weakref.WeakMethod) -> None:  # type: ignore[type-arg]
    """Call the method if its team is still alive."""
    if (bound := method()) is not None:
        bound()


@functools.cache
def team(threads: int) -> Team:
    """The process's one team of this size."""
    return Team(threads)
