"""Processes that measure the same jobs in turns, so that the machine's drift affects all."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence

Job = tuple[str, int, int]  # see peers/load.py
JOBS: dict[str, Job] = {
    "decode after 32": ("decode", 32, 64),
    "decode after 1024": ("decode", 1024, 64),
    "prefill 512": ("prefill", 512, 0),
}

Found = dict[str, dict[str, list[float]]]
"""For each job and side, tokens per second in the order of measurement."""


class Side:
    """A process that prints "ready", then answers jobs, one line each, with tokens per second.

    An empty line ends it: mpirun does not pass on the end of a file.

    Args:
        threads: the number in its environment, for libraries that read it there.

    Attributes:
        about: its description of itself.
    """

    def __init__(self, command: Sequence[str], threads: int | None = None) -> None:
        told = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
        self.process = subprocess.Popen(
            command,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | told if threads else None,
        )
        word, _, self.about = self._read().strip().partition(" ")
        assert word == "ready", f"{command} did not start"

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def rate(self, job: Job) -> float:
        assert self.process.stdin
        print(*job, file=self.process.stdin, flush=True)
        return float(self._read())

    def close(self) -> None:
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        self.process.wait()


def in_turns(sides: Mapping[str, Side], jobs: Mapping[str, Job], repeats: int) -> Found:
    """Return the rates of every side at every job, and end the sides.

    Every other turn goes backwards, because the first side after a pause is a little slower.
    """
    found: Found = {name: {side: [] for side in sides} for name in jobs}
    for turn in range(repeats):
        order = list(sides.items())[:: 1 if turn % 2 == 0 else -1]
        for name, job in jobs.items():
            for side, process in order:
                found[name][side].append(process.rate(job))
    for process in sides.values():
        process.close()
    return found


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Return the quartiles of the ratios of neighbouring measurements."""
    return statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
