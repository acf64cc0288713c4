"""The thread pool: workers that run captured tables beside the calling thread.

A worker is a Python thread inside one compiled loop that never takes the GIL. It spins for about a
millisecond after a run and then parks on an event, so an idle engine costs nothing, and the same
code works on every operating system. A worker that a run leaves out (`thread_governor.py`) parks
at once. The child of a fork has no workers; they start anew at its first run.
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
from nanocupy.device.cpu.thread_governor import ThreadGovernor, cpu_time

_START, _STOP, _TABLE, _ROWS, _SPIN, _STATUS, _IDLE, _FLAGS = (8 * field for field in range(8))
_ABI = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
WORKER = Kernel("nanocupy.device.cpu.worker_loop:worker")
ANNOUNCE = Kernel("nanocupy.device.cpu.worker_loop:announce")
RUN = Kernel("nanocupy.device.cpu.worker_loop:run")
KERNELS = (WORKER, ANNOUNCE, RUN)


class ThreadPool:
    """`threads` threads, the caller's included, that run tables together.

    Args:
        threads: size of the pool.
        spin: tries at a barrier before a thread yields its core.
        idle: tries of an idle worker before it parks (20,000 is about a millisecond).

    Attributes:
        governor: decides how many threads the next run should have.
    """

    def __init__(self, threads: int, spin: int = 1000, idle: int = 20_000) -> None:
        self.threads, self._spin, self._idle = threads, spin, idle
        self._reset()
        self._walk, self._store = _ABI(RUN.address), _ABI(ANNOUNCE.address)
        atexit.register(_call, weakref.WeakMethod(self.close))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                after_in_child=functools.partial(_call, weakref.WeakMethod(self._reset))
            )

    def run(self, table: int, rows: int, threads: int) -> tuple[int, int]:
        """Run `rows` rows of the table at an address on `threads` threads.

        Returns:
            (0, 0), or (row that failed, its code).
        """
        with self._lock:
            try:
                if len(self._workers) < self.threads - 1:
                    self._start()
                control = self._control
                control[_TABLE], control[_ROWS], control[_STATUS] = table, rows, 0
                control[_FLAGS::8] = control[_FLAGS]  # workers left out before catch up
                self.governor.start(threads)
                self._announce(self._message, ((self._message[1] >> 8) + 1 << 8) | threads)
                for event in self._wake[: threads - 1]:
                    event.set()
                status = self._walk(self._args.ctypes.data, 0, threads)
                self.governor.stop()
            except BaseException:  # no thread can be started, or Ctrl-C: no worker may wait for us
                self._abandon_workers()
                raise
        return (0, 0) if status == 0 else ((status >> 8) - 1, status & 255)

    @property
    def progress(self) -> int:
        """How many kernels have been run; grows during a run."""
        return int(self._control[_FLAGS])

    def close(self) -> None:
        """Stop the workers. The next run starts new ones."""
        with self._lock:
            self._abandon_workers()

    def _reset(self) -> None:
        """Start without workers: at first, and in the child of a fork."""
        self._lock = threading.Lock()
        self._new_generation()

    def _new_generation(self) -> None:
        """Make the state of the next workers; those of before keep theirs."""
        self._workers: list[threading.Thread] = []
        self._wake = [threading.Event() for _ in range(self.threads - 1)]
        self.governor = ThreadGovernor(self.threads)
        self._control = Memory().empty((_FLAGS + 8 * self.threads,), np.int64)
        self._control[_SPIN], self._control[_IDLE] = self._spin, self._idle
        self._args = np.array([self._control.ctypes.data], np.int64)
        self._message = (ctypes.c_int64 * 2)(self._control.ctypes.data, 0)  # ANNOUNCE's arguments

    def _announce(self, message: Any, start: int) -> None:
        """Change START by an atomic store: whoever sees it sees what was written before it.

        NumPy's would be a plain store, which only x86 keeps in order.
        """
        message[1] = start
        self._store(ctypes.addressof(message), 0, 1)

    def _abandon_workers(self) -> None:
        """Stop the workers in whatever state they are, even in a run that the caller has left."""
        control, wake, workers, message = self._control, self._wake, self._workers, self._message
        self._new_generation()
        control[_STATUS] = control[_STOP] = 1
        self._announce(message, message[1] + 1)
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
            self.governor.workers.append(cpu_time(worker))


def _serve(control: np.ndarray, wake: threading.Event, thread: int, threads: int) -> None:
    """Be a worker: in the compiled loop while there is work, parked while there is none."""
    worker = _ABI(WORKER.address)
    args = np.array([control.ctypes.data, 0], np.int64)
    while not control[_STOP]:
        args[1] = worker(args.ctypes.data, thread, threads)
        wake.clear()
        if control[_START] == args[1] and not control[_STOP]:
            wake.wait()


def _call(method: weakref.WeakMethod) -> None:  # type: ignore[type-arg]
    """Call the method if its pool is still alive."""
    if (bound := method()) is not None:
        bound()


@functools.cache
def shared_pool(threads: int) -> ThreadPool:
    """The process's one pool of this size."""
    return ThreadPool(threads)
