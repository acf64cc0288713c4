"""Groups of processes, and how a process becomes part of one."""

from nanocupy.distributed.group import ONE, Group, RankError

__all__ = ["ONE", "Group", "RankError"]
