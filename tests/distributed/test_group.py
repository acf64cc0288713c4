"""Processes that mpirun started, without an engine."""

from __future__ import annotations

import pytest

from mpirun import mpirun, needs_mpi, program

pytestmark = needs_mpi


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_ranks_tell_each_other(ranks: int) -> None:
    assert program(ranks, "group.py") == "well\n"


def test_an_exception_that_nobody_catches_ends_the_job() -> None:
    code = (
        "from nanocupy.distributed import world\n"
        "import time\n"
        "if world().rank() == 1: raise ValueError('oops')\n"
        "time.sleep(60)"
    )
    ended = mpirun(2, "-c", code)
    assert ended.code != 0 and "ValueError: oops" in ended.err and ended.seconds < 10


def test_a_launcher_that_mpi4py_does_not_know() -> None:
    """As with mpirun of one MPI and mpi4py of another: each process is a world of its own."""
    code = (
        "import os; os.environ['OMPI_COMM_WORLD_SIZE'] = '2'\n"
        "from nanocupy.distributed import world; world()"
    )
    ended = mpirun(1, "-c", code)
    assert ended.code != 0
    assert "started 2 processes, and mpi4py sees a world of 1" in ended.err


def test_without_mpi4py() -> None:
    code = (
        "import sys; sys.modules['mpi4py'] = None\nfrom nanocupy.distributed import world; world()"
    )
    ended = mpirun(2, "-c", code)
    assert ended.code != 0 and "pip install 'nanocupy[mpi]'" in ended.err
    assert ended.seconds < 10
