"""Every kernel under sanitizers, and the table of mutants: see `sanitize` and `mutants`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from device.needs import needs_compiler
from kernels.cuda import mutants
from kernels.cuda.sanitize import ROOT, environment
from mutants import has_check, sown
from nanocupy.device.cuda import sources

unless_inside = pytest.mark.skipif(
    "NANOCUPY_SANITIZED" in os.environ, reason="runs under a sanitizer already"
)
TABLE = mutants.table()


def test_every_mutant_has_a_place_and_a_check() -> None:
    for mutant in TABLE:
        assert sown(mutant) and has_check(mutant), mutant
    files = {mutant.file.removeprefix("cuda_kernels/") for mutant in TABLE}
    assert files >= {path.name for path in sources.kernel_folder().glob("*.cu")}


def by_tool(tool: str) -> list[str]:
    """The checks that catch mutants under a sanitizer: they are known to be able to fail."""
    return sorted({mutant.check for mutant in TABLE if mutant.tool == tool})


@unless_inside
@needs_compiler
@pytest.mark.slow
def test_kernels_are_clean() -> None:
    """Both sanitizers at once."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    how: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    runs = [
        subprocess.Popen([*command, *by_tool(t)], env={**os.environ, **environment(t)}, **how)
        for t in ("asan", "tsan")
    ]
    for run in runs:
        told, _ = run.communicate()
        assert run.returncode == 0, told.decode()[-4000:]


@unless_inside
@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("tool", ["plain", "asan", "tsan"])
def test_a_mutant_is_caught(tool: str) -> None:
    """One of each kind; `python tests/kernels/cuda/mutants.py` runs them all."""
    mutant = next(m for m in TABLE if m.tool == tool and "rms_norm" not in m.check)
    assert mutants.caught(mutant) is None
