"""Groups of processes, and how a process becomes part of one."""

from __future__ import annotations

from typing import Any

from nanocupy.distributed.group import ONE, Group, RankError, shares


def world() -> Group:
    """The group of all processes of the job; see `distributed.job`."""
    from nanocupy.distributed.job import world

    return world()


def group_of(comm: Any) -> Group:
    """The group of an mpi4py communicator's processes, for programs that use MPI themselves."""
    from nanocupy.distributed.mpi import MpiGroup

    return MpiGroup(comm)


__all__ = ["ONE", "Group", "RankError", "group_of", "shares", "world"]
