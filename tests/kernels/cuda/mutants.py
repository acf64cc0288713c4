"""Faults sown into the CUDA kernels: a table and a command, as `tests/mutants.py` has them.

    python tests/kernels/cuda/mutants.py            all of them, a line each
    python tests/kernels/cuda/mutants.py sample.cu  those of one file

A barrier goes, a bound is off by one, a mask is wrong; a check runs plainly or under a sanitizer.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import mutants
from kernels.cuda.sanitize import environment

TABLE = Path(__file__).with_suffix(".json")


def table() -> list[mutants.Mutant]:
    return mutants.table(TABLE)


def caught(mutant: mutants.Mutant) -> str | None:
    """None if the check notices the fault, else what happened."""
    return mutants.caught(mutant, environment(mutant.tool))


if __name__ == "__main__":
    tools = {tool: environment(tool) for tool in ("plain", "asan", "tsan")}
    sys.exit(mutants.main(mutants.named(table(), sys.argv[1:]), tools))
