"""Which CPUs a rank runs on.

Open MPI binds each rank of a small job to a single core. On a single host the ranks share out all
cores of the job instead: as many on each, neighbours together.
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
        ranks: what its ranks may use. Open MPI may have bound each to one: then those count that
            the launcher, our parent, may run on.
    """
    launcher: set[int] = set()
    if "OMPI_COMM_WORLD_SIZE" in os.environ and AFFINITY:
        with suppress(OSError):
            launcher = set(os.sched_getaffinity(os.getppid()))
    return sorted(launcher if launcher > ranks else ranks)


def share_of(cores: list[int], rank: int, ranks: int) -> list[int]:
    """The cores of one of `ranks` on a host; where there are fewer than ranks, one of them."""
    each = len(cores) // ranks
    return cores[rank * each : (rank + 1) * each] or [cores[rank % len(cores)]]


def use(cores: list[int]) -> None:
    """Run this process, and the threads it starts from now on, on these CPUs."""
    if AFFINITY:
        with suppress(OSError):  # they are not ours to choose
            os.sched_setaffinity(0, cores)
