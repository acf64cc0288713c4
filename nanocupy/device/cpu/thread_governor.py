"""How many threads a run should have: fewer while other processes take their cores.

A barrier waits for the last thread. Where a busy process shares a core with one of n threads, that
thread stands still half of the time and all wait for it: n threads do n/2 threads' work. So the
governor compares how long the threads were wanted with how long each had a core, and takes one
thread away while more is lost than a thread is worth. Now and then it tries again with one more.

Results do not depend on the number of threads, so nothing but the speed changes. Where a thread's
CPU time cannot be read by others (macOS, Windows), nothing ever seems lost.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]
READABLE = hasattr(time, "pthread_getcpuclockid")
WINDOW = 0.02  # seconds of runs that are judged together: several time slices of the system's
LEAST_LOSS = 0.2  # of one thread's time, which may be lost without consequence
WORTH = 0.8  # of the n-th part of the rate: what the last of n threads adds (memory is shared)
PAUSE = 0.04, 4.0  # seconds of runs until one more thread is tried: at first, and at most
LONGER = 4  # times as long after each try that failed


def cpu_time(thread: threading.Thread) -> Clock:
    """A clock of the seconds that a thread has had a core."""
    if not READABLE or thread.ident is None:
        return time.perf_counter
    return functools.partial(time.clock_gettime, time.pthread_getcpuclockid(thread.ident))


class ThreadGovernor:
    """Chooses the number of threads of the next run.

    Args:
        most: threads there are, the caller's included.

    Attributes:
        threads: how many of them should take part in the next run.
        workers: a clock of each worker's CPU time; whoever starts a worker appends it.
    """

    def __init__(self, most: int, caller: Clock | None = None, now: Clock | None = None) -> None:
        self.threads = self._most = most
        self.workers: list[Clock] = []
        self._caller = caller or (time.thread_time if READABLE else time.perf_counter)
        self._now = now or time.perf_counter
        self._pause, self._rest = PAUSE[0], 0.0
        self._wanted = self._given = 0.0
        self._marks: list[float] = []

    def start(self, threads: int) -> None:
        """Note that a run on `threads` threads begins."""
        if self._wanted == 0 or threads - 1 != len(self._marks):  # a window begins
            self._wanted = self._given = 0.0
            self._marks = [clock() for clock in self.workers[: threads - 1]]
        self._began, self._had = self._now(), self._caller()

    def stop(self) -> None:
        """Note that the run is done; at the end of a window, choose the number of threads."""
        self._wanted += self._now() - self._began
        self._given += self._caller() - self._had
        if self._wanted >= WINDOW:
            self._judge(self._loss())
            self._wanted = 0.0

    def _loss(self) -> float:
        """How long the threads were without a core, in total, in windows: 1 is one thread's time.

        A worker also spins between runs; what it had then makes up for a little of what it lacked.
        """
        had = [clock() - mark for clock, mark in zip(self.workers, self._marks, strict=False)]
        return sum(max(0.0, self._wanted - h) for h in (self._given, *had)) / self._wanted

    def _judge(self, loss: float) -> None:
        """Choose one thread less, one more, or as many."""
        self._rest -= self._wanted
        if self.threads > 1 and loss > max(LEAST_LOSS, WORTH / self.threads):
            self.threads -= 1
            self._rest = self._pause
            self._pause = min(LONGER * self._pause, PAUSE[1])
        elif self.threads < self._most and self._rest <= 0:
            self.threads += 1
        elif self.threads == self._most:
            self._pause = PAUSE[0]
