"""Which CPUs a rank runs on.

Open MPI binds each rank of a small job to one core. If all ranks are on one host, they instead
divide all cores of the job evenly, neighbouring cores together.
"""

from __future__ import annotations

import os
from contextlib import suppress

AFFINITY = hasattr(os, "sched_setaffinity")


def own_cores() -> list[int]:
    """The CPUs this process may run on."""
    if AFFINITY:
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def job_cores(ranks: set[int]) -> list[int]:
    """The CPUs of a job on this host.

    Args:
        ranks: the CPUs that its ranks may use. If Open MPI bound each rank to one core, the
            launcher's CPUs count instead; it is our parent process.
    """
    launcher: set[int] = set()
    if "OMPI_COMM_WORLD_SIZE" in os.environ and AFFINITY:
        with suppress(OSError):
            launcher = set(os.sched_getaffinity(os.getppid()))
    return sorted(launcher if launcher > ranks else ranks)


def share_of(cores: list[int], rank: int, ranks: int) -> list[int]:
    """The cores of one of `ranks` ranks on a host; if there are fewer cores than ranks, one."""
    each = len(cores) // ranks
    return cores[rank * each : (rank + 1) * each] or [cores[rank % len(cores)]]


def use(cores: list[int]) -> None:
    """Bind this process, and the threads it starts from now on, to these CPUs."""
    if AFFINITY:
        with suppress(OSError):  # not permitted
            os.sched_setaffinity(0, cores)
