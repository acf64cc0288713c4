"""Programs that are started several times at once, as users start them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

PROGRAMS = Path(__file__).parent / "distributed" / "programs"
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
missing = None if MPIRUN and find_spec("mpi4py") else "mpirun and mpi4py: pip install '.[mpi]'"
needs_mpi = pytest.mark.skipif(
    missing is not None and not os.environ.get("CI"), reason=f"needs {missing}"
)
# Tests run as root in containers, on fewer cores than ranks.
ALLOWED = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Ended(NamedTuple):
    """How a job ended: its exit code, what it said, and after how many seconds."""

    code: int
    out: str
    err: str
    seconds: float


def start(ranks: int, *command: str, **env: str) -> subprocess.Popen[str]:
    """`mpirun -n ranks python command`."""
    assert MPIRUN, missing
    line = [MPIRUN, "-n", str(ranks), "--oversubscribe", sys.executable, *command]
    return subprocess.Popen(
        line,
        env={**os.environ, **ALLOWED, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def mpirun(ranks: int, *command: str, timeout: float = 120, **env: str) -> Ended:
    """Run a job to its end."""
    begun = time.monotonic()
    with start(ranks, *command, **env) as job:
        try:
            out, err = job.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            job.terminate()
            out, err = job.communicate()
            pytest.fail(f"{command} on {ranks} ranks took {timeout} s\n{out}\n{err}")
    return Ended(job.returncode, out, err, time.monotonic() - begun)


def program(ranks: int, name: str, *args: str, timeout: float = 120, **env: str) -> str:
    """What one of the programs of the tests prints; it must end well."""
    ended = mpirun(ranks, str(PROGRAMS / name), *args, timeout=timeout, **env)
    assert ended.code == 0, ended.err
    return ended.out
