"""The jobs of every side, and the loop that answers them: one process a side, one line a job.

A side is a class with `prefill(prompt)`, `decode(prompt, new)` and `batch(prompts, new)`, each of
which returns seconds, and `about()`, a line on how it was built. It is made with (model, threads).
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

TOKENS = (100, 10_000)  # random prompts take ids from here
LENGTHS = (32, 256)  # of the prompts and of the answers in a batch


def tokens(source: random.Random, count: int) -> list[int]:
    """Return `count` random token ids."""
    return [source.randrange(*TOKENS) for _ in range(count)]


def batch(requests: int) -> tuple[list[list[int]], list[int]]:
    """Return prompts and lengths of answers, as nano-vLLM's bench draws them, always the same."""
    source = random.Random(0)
    prompts = [tokens(source, source.randint(*LENGTHS)) for _ in range(requests)]
    return prompts, [source.randint(*LENGTHS) for _ in range(requests)]


def rate(side: Any, source: random.Random, job: str, count: int, new: int) -> float:
    """Return tokens per second of one job: of the prompt, of the answer, or of all answers."""
    if job == "prefill":
        return count / float(side.prefill(tokens(source, count)))
    if job == "decode":
        return new / float(side.decode(tokens(source, count), new))
    prompts, answers = batch(count)
    return sum(answers) / float(side.batch(prompts, answers))


def serve(side: type) -> None:
    """Answer `job count new` lines on stdin until an empty one. Arguments: model, threads.

    The output of libraries goes to stderr, so that it is not taken for an answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    made, source = side(sys.argv[1], int(sys.argv[2])), random.Random(1)
    rate(made, source, "decode", 32, 4)
    print("ready", made.about(), file=answers, flush=True)
    while line := sys.stdin.readline().split():
        done = rate(made, source, line[0], int(line[1]), int(line[2]))
        print(done, file=answers, flush=True)
