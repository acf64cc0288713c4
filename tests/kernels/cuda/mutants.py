"""Faults sown into the CUDA kernels, each of which a named check must catch.

A check that cannot fail proves nothing. So every entry of `mutants.json` changes one place of one
kernel (a barrier goes, a bound is off by one, a mask is wrong), in a copy of the tree, and runs the
one test that is there to notice: plainly, or under a sanitizer. A test that still passes is a
failure, and so is a change whose text the kernel no longer has.

    python tests/kernels/cuda/mutants.py            all of them, a line each
    python tests/kernels/cuda/mutants.py sample.cu  those of one file
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TABLE = HERE / "mutants.json"


class Mutant(NamedTuple):
    """
    Attributes:
        file: in `cuda_kernels`.
        old, new: the text that is there once, and what takes its place.
        check: the test that must fail.
        tool: "plain", "asan" or "tsan": how the test runs.
        why: what kind of fault it is.
    """

    file: str
    old: str
    new: str
    check: str
    tool: str
    why: str


def table() -> list[Mutant]:
    return [Mutant(**entry) for entry in json.loads(TABLE.read_text())]


def sown(mutant: Mutant, text: str) -> str:
    """The source with the fault in it. Raises ValueError if there is not one place for it."""
    if text.count(mutant.old) != 1 or mutant.old == mutant.new:
        raise ValueError(
            f"{mutant.file}: {mutant.old!r} occurs {text.count(mutant.old)} times: "
            "the kernel has changed, change mutants.json too"
        )
    return text.replace(mutant.old, mutant.new)


def caught(mutant: Mutant) -> str | None:
    """None if the check notices the fault, else what happened."""
    from kernels.cuda.sanitize import environment

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("nanocupy", "cuda_kernels", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        source = copy / "cuda_kernels" / mutant.file
        source.write_text(sown(mutant, source.read_text()))
        set_up = {**os.environ, **environment(mutant.tool), "PYTHONPATH": str(copy)}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        ran = subprocess.run(
            [*command, mutant.check], cwd=copy, env=set_up, capture_output=True, text=True
        )
    told = ran.stdout + ran.stderr
    if ran.returncode == 0:
        return "the check passed"
    if ran.returncode in (1, 66, -11, -6) or "Sanitizer" in told or "runtime error" in told:
        broken = "CompileError" in told or "ImportError" in told
        return f"the mutant does not compile:\n{told[-1500:]}" if broken else None
    return f"pytest ended with {ran.returncode}:\n{told[-1500:]}"


def main(files: list[str]) -> int:
    """Print how each mutant fared; 1 if one got away."""
    chosen = [m for m in table() if not files or m.file in files]
    escaped = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, problem in zip(chosen, pool.map(caught, chosen), strict=True):
            escaped += problem is not None
            print(f"{'ESCAPED' if problem else 'caught':<8} {mutant.file:<22} {mutant.tool:<6}"
                  f" {mutant.why:<44} {mutant.check.partition('::')[2]}", flush=True)  # fmt: skip
            if problem:
                print(problem)
    print(f"{len(chosen) - escaped} of {len(chosen)} caught")
    return int(escaped > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    sys.exit(main(sys.argv[1:]))
