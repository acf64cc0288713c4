"""The group of all processes that the launcher started. A process joins it once, on request.

From then on an exception that nobody catches ends the job, and the ranks divide the cores.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from nanocupy.distributed import cores, leftovers
from nanocupy.distributed.group import ONE, Group
from nanocupy.distributed.launcher import launched_size
from nanocupy.distributed.mpi import MpiGroup, load_mpi

MOST_CORES = 4096  # of a host


@functools.cache
def world() -> Group:
    """All processes of the job; a group of one if there is only one.

    Raises:
        RuntimeError: several were started, and mpi4py is missing or sees only one.
    """
    size = launched_size()
    if size == 1:
        return ONE
    mpi = load_mpi()
    comm = mpi.COMM_WORLD
    if comm.Get_size() != size:
        raise RuntimeError(
            f"[distributed] the launcher started {size} processes, and mpi4py sees a world of "
            f"{comm.Get_size()}: it was built for another MPI ({mpi.get_vendor()[0]}) than the "
            "launcher's; install both together: pip install 'nanocupy[mpi]'"
        )
    _share_cores(mpi, comm)
    group = MpiGroup(comm)
    if group.local_rank == 0:
        leftovers.clear()
    _abort_on_exceptions(group.abort)
    return group


def _share_cores(mpi: Any, comm: Any) -> None:
    host = comm.Split_type(mpi.COMM_TYPE_SHARED)
    mine, ours = np.zeros((2, MOST_CORES), np.uint8)
    mine[[core for core in cores.own_cores() if core < MOST_CORES]] = 1
    host.Allreduce(mine, ours, mpi.MAX)
    if host.Get_size() == comm.Get_size():
        job = cores.job_cores(set(np.flatnonzero(ours).tolist()))
        cores.use(cores.share_of(job, host.Get_rank(), host.Get_size()))
    host.Free()


def _abort_on_exceptions(abort: Callable[[], None]) -> None:
    """End the job after an exception that nobody catches: the other ranks would wait."""
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        shown(kind, error, trace)
        sys.stdout.flush()
        sys.stderr.flush()
        abort()

    sys.excepthook = hook
