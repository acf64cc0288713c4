"""Groups of processes and their collectives, as `mlx.core.distributed` has them."""

from importlib.util import find_spec

from nanocupy.core.names import refuse
from nanocupy.core.recorder.collectives import all_gather, all_max, all_sum, gather_columns
from nanocupy.distributed import Group, world

_BACKENDS = ("any", "mpi")


def is_available(backend: str = "any") -> bool:
    """Whether several processes could work together: mpi4py is installed."""
    return backend in _BACKENDS and find_spec("mpi4py") is not None


def init(strict: bool = False, backend: str = "any") -> Group:
    """The group of all processes that the launcher started.

    Args:
        strict: a group of one is an error.
        backend: "any" or "mpi", which are the same.

    Raises:
        ValueError: another backend.
        RuntimeError: there is one process, and `strict`.
    """
    if backend not in _BACKENDS:
        raise ValueError(f"[distributed] backend={backend!r}: expected one of {_BACKENDS}")
    group = world()
    if strict and group.size() == 1:
        raise RuntimeError("[distributed] there is one process: start several with mpirun -n")
    return group


__all__ = [
    "Group",
    "all_gather",
    "all_max",
    "all_sum",
    "gather_columns",
    "init",
    "is_available",
]


__getattr__ = refuse(__name__, "distributed", "all_min recv recv_like send sum_scatter")
