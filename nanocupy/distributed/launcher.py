"""Whether this process is one of several that `mpirun` (or `srun`) started: from the environment.

Nothing of MPI is loaded to find out.
"""

from __future__ import annotations

import os

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MPI_LOCALRANKID")


def launched_size() -> int:
    """How many processes were started together; 1 where none says so."""
    return _first(_SIZES, 1)


def launched_rank() -> int:
    """Which of them this is; 0 where none says so."""
    return _first(_RANKS, 0)


def _first(names: tuple[str, ...], default: int) -> int:
    found = (os.environ.get(name, "") for name in names)
    return next((int(text) for text in found if text.isdigit()), default)
