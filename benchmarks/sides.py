"""Two processes that measure the same, asked in turns, so that the machine's drift hits both."""

from __future__ import annotations

import random
import statistics
import subprocess
from collections.abc import Sequence
from typing import Any

JOBS = {"decode after 32": (32, 64), "decode after 1024": (1024, 64), "prefill 512": (512, 0)}
"""What is measured: (tokens of the prompt, tokens after it)."""

Found = dict[str, list[tuple[float, float]]]


class Side:
    """A process that says "ready", then answers `prompt new` lines with tokens per second each.

    An empty line ends it: mpirun does not pass on the end of a file.
    """

    def __init__(self, command: Sequence[str]) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, **pipes)
        assert self._read().strip() == "ready", f"{command} did not start"

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def rate(self, prompt: int, new: int) -> float:
        assert self.process.stdin
        print(prompt, new, file=self.process.stdin, flush=True)
        return float(self._read())

    def close(self) -> None:
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        self.process.wait()


def in_turns(one: Side, two: Side, repeats: int) -> Found:
    """Pairs of rates for every job, taken one after the other; ends both sides."""
    found: Found = {name: [] for name in JOBS}
    for _ in range(repeats):
        for name, job in JOBS.items():
            found[name].append((one.rate(*job), two.rate(*job)))
    one.close()
    two.close()
    return found


def quartiles(pairs: list[tuple[float, float]]) -> list[float]:
    """Of the ratios of the pairs."""
    return statistics.quantiles([a / b for a, b in pairs], n=4)


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Of each side."""
    one, two = (statistics.median(side) for side in zip(*pairs, strict=True))
    return one, two


def engine_rate(llm: Any, source: random.Random, prompt: int, new: int) -> float:
    """Tokens per second of an engine on a random prompt (new = 0), or on what follows it."""
    from nanocupy import SamplingParams

    ids = [source.randrange(10_000) for _ in range(prompt)]
    params = SamplingParams(temperature=0, max_tokens=new + 1, ignore_eos=True)
    times = llm.generate(ids, params)[0].metrics
    assert times.first_token and times.scheduled and times.finished
    if new:
        return new / (times.finished - times.first_token)
    return prompt / (times.first_token - times.scheduled)
