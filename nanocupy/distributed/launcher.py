"""Whether `mpirun` or `srun` started this process with others: read from the environment.

MPI is not loaded for it.
"""

from __future__ import annotations

import os

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MPI_LOCALRANKID")


def launched_size() -> int:
    """How many processes were started together; 1 by default."""
    return _first(_SIZES, 1)


def launched_rank() -> int:
    """Which of them this is; 0 by default."""
    return _first(_RANKS, 0)


def _first(names: tuple[str, ...], default: int) -> int:
    found = (os.environ.get(name, "") for name in names)
    return next((int(text) for text in found if text.isdigit()), default)
