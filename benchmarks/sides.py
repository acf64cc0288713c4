"""Processes that measure the same, asked in turns, so that the machine's drift hits all alike."""

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
"""Job -> side -> tokens per second, in the order in which they were measured."""


class Side:
    """A process that says "ready", then answers jobs, a line each, with tokens per second.

    An empty line ends it: mpirun does not pass on the end of a file.

    Args:
        threads: what it is told by the environment, for libraries that take it from there.

    Attributes:
        about: what it said of itself.
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
    """Rates of every side at every job, one after the other; ends the sides.

    Every other turn goes backwards: who comes first after a pause is a little slower.
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
    """Quartiles of the ratios of what was measured side by side."""
    return statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
