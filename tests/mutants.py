"""Faults sown into the package, each of which a named test must catch.

A test that cannot fail proves nothing. So every entry of `mutants.json` changes one place of one
file, in a copy of the tree, and runs the one test that is there to notice. A test that still passes
is a failure, and so is a change whose text the file no longer has.

    python tests/mutants.py                     all of them, a line each
    python tests/mutants.py block_pool.py gguf  those of files with such names

The CUDA kernels have a table of their own: `tests/kernels/cuda/mutants.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".json")
LONGEST = 300  # seconds: a test that a fault makes hang has noticed it


class Mutant(NamedTuple):
    """
    Attributes:
        file: in the repository.
        old, new: the text that is there once, and what takes its place.
        check: the test that must fail.
        why: what kind of fault it is.
        tool: how the test runs: "plain", or a sanitizer's name.
    """

    file: str
    old: str
    new: str
    check: str
    why: str
    tool: str = "plain"


def table(path: Path = TABLE) -> list[Mutant]:
    return [Mutant(**entry) for entry in json.loads(path.read_text())]


def sown(mutant: Mutant) -> str:
    """The file with the fault in it. Raises ValueError if there is not one place for it."""
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1 or mutant.old == mutant.new:
        raise ValueError(
            f"{mutant.file}: {mutant.old!r} occurs {text.count(mutant.old)} times: "
            "the file has changed, change the table of mutants too"
        )
    return text.replace(mutant.old, mutant.new)


def has_check(mutant: Mutant) -> bool:
    """Whether the test that it names is there."""
    path, _, name = mutant.check.partition("::")
    return f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8")


def caught(mutant: Mutant, env: Mapping[str, str] | None = None) -> str | None:
    """None if the check notices the fault, else what happened."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("nanocupy", "cuda_kernels", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / mutant.file).write_text(sown(mutant), encoding="utf-8")
        set_up = {**os.environ, **(env or {}), "PYTHONPATH": str(copy)}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        try:
            ran = subprocess.run([*command, mutant.check], cwd=copy, env=set_up, text=True,
                                 capture_output=True, timeout=LONGEST)  # fmt: skip
        except subprocess.TimeoutExpired:
            return None
    told = ran.stdout + ran.stderr
    if ran.returncode == 0:
        return "the check passed"
    if ran.returncode in (1, 66, -11, -6) or "Sanitizer" in told or "runtime error" in told:
        broken = any(f"{kind}Error" in told for kind in ("Compile", "Import", "Syntax"))
        return f"the mutant does not compile:\n{told[-1500:]}" if broken else None
    return f"pytest ended with {ran.returncode}:\n{told[-1500:]}"


def main(chosen: list[Mutant], env: Mapping[str, Mapping[str, str]] | None = None) -> int:
    """Print how each mutant fared, where tools run under `env`; 1 if one got away."""

    def one(mutant: Mutant) -> str | None:
        return caught(mutant, (env or {}).get(mutant.tool))

    escaped = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, problem in zip(chosen, pool.map(one, chosen), strict=True):
            escaped += problem is not None
            print(f"{'ESCAPED' if problem else 'caught':<8} {Path(mutant.file).name:<22}"
                  f" {mutant.tool:<6} {mutant.why:<44} {mutant.check.partition('::')[2]}",
                  flush=True)  # fmt: skip
            if problem:
                print(problem)
    print(f"{len(chosen) - escaped} of {len(chosen)} caught")
    return int(escaped > 0)


def named(mutants: list[Mutant], words: list[str]) -> list[Mutant]:
    """Those of files that have one of the words in their names; all where there is none."""
    return [m for m in mutants if not words or any(word in m.file for word in words)]


if __name__ == "__main__":
    sys.exit(main(named(table(), sys.argv[1:])))
