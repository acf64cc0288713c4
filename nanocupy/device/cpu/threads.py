"""The thread team: workers that walk captured tables beside the calling thread.

A worker is a Python thread inside one compiled loop that never takes the GIL; it spins for about a
millisecond after a run and then parks on a condition variable, so an idle engine costs nothing and
the same code works on every operating system. A fork leaves the child without workers; they start
anew at the child's first run.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import threading
import weakref

import numpy as np

from nanocupy.device.cpu.jit import Kernel
from nanocupy.device.cpu.memory import Memory

_START, _STOP, _TABLE, _ROWS, _SPIN, _STATUS, _IDLE, _FLAGS = (8 * field for field in range(8))
_ABI = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
WORKER = Kernel("nanocupy.device.cpu.team:worker")
RUN = Kernel("nanocupy.device.cpu.team:run")
KERNELS = (WORKER, RUN)


class Team:
    """`threads` threads, the caller's included, that run tables together.

    Args:
        threads: size of the team.
        spin: tries at a barrier before a thread yields its core.
        idle: tries of an idle worker before it parks (20,000 is about a millisecond).
    """

    def __init__(self, threads: int, spin: int = 1000, idle: int = 20_000) -> None:
        self.threads = threads
        self._control = Memory().empty((_FLAGS + 8 * threads,), np.int64)
        self._control[_SPIN], self._control[_IDLE] = spin, idle
        self._reset()
        self._walk = _ABI(RUN.address)
        self._args = np.array([self._control.ctypes.data], np.int64)
        atexit.register(_call, weakref.WeakMethod(self.close))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                after_in_child=functools.partial(_call, weakref.WeakMethod(self._reset))
            )

    def run(self, table: int, rows: int) -> tuple[int, int]:
        """Run `rows` rows of the table at an address; (0, 0), or (failed row, code)."""
        with self._lock:
            if len(self._workers) < self.threads - 1:
                self._start()
            control = self._control
            control[_TABLE], control[_ROWS], control[_STATUS] = table, rows, 0
            with self._work:
                control[_START] += 1
                self._work.notify_all()
            status = self._walk(self._args.ctypes.data, 0, self.threads)
        return (0, 0) if status == 0 else ((status >> 8) - 1, status & 255)

    def close(self) -> None:
        """Stop the workers. The next run starts new ones."""
        with self._lock:
            with self._work:
                self._control[_STOP] = 1
                self._control[_START] += 1
                self._work.notify_all()
            for worker in self._workers:
                worker.join()
        self._reset()

    def _reset(self) -> None:
        """Back to a team without workers: after `close`, and in the child of a fork."""
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._work = threading.Condition()
        self._control[[_START, _STOP, _STATUS]] = 0
        self._control[_FLAGS:] = 0

    def _start(self) -> None:
        for thread in range(1, self.threads):
            worker = threading.Thread(
                target=self._serve, args=(thread,), daemon=True, name=f"nanocupy-{thread}"
            )
            self._workers.append(worker)
            worker.start()

    def _serve(self, thread: int) -> None:
        control, worker = self._control, _ABI(WORKER.address)
        args = np.array([control.ctypes.data, 0], np.int64)
        while not control[_STOP]:
            args[1] = worker(args.ctypes.data, thread, self.threads)
            with self._work:
                while control[_START] == args[1] and not control[_STOP]:
                    self._work.wait()


def _call(method: weakref.WeakMethod) -> None:  # type: ignore[type-arg]
    """Call the method if its team is still alive."""
    if (bound := method()) is not None:
        bound()


@functools.cache
def team(threads: int) -> Team:
    """The process's one team of this size."""
    return Team(threads)
