"""A rank fails while it loads, in a program that uses MPI itself. argv: model."""

from __future__ import annotations

import sys

from mpi4py import MPI

from nanocupy import LLM
from nanocupy.engine.runner import ModelRunner

comm = MPI.COMM_WORLD


def init(self: ModelRunner, *args: object) -> None:
    raise MemoryError("sown fault")


if comm.rank == 1:
    ModelRunner.__init__ = init  # type: ignore
try:
    LLM(sys.argv[1], comm=comm)
except Exception as error:
    print(f"{comm.rank} {type(error).__name__}: {error}", flush=True)
comm.Barrier()
