"""Groups of processes and their collectives, as `mlx.core.distributed` has them.

There is one process so far. In a group of one, collectives change nothing.
"""

from __future__ import annotations

from typing import Any

from nanocupy.core.array import array, as_array


class Group:
    """A group of one process."""

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 1


def is_available(backend: str = "any") -> bool:
    """Whether several processes can work together."""
    return False


def init(strict: bool = False, backend: str = "any") -> Group:
    """The group of all processes.

    Args:
        strict: a group of one is an error.
    """
    if strict:
        raise NotImplementedError(f"[distributed] groups of several processes ({backend})")
    return Group()


def all_sum(x: Any, *, group: Group | None = None) -> array:
    """The sum of x over the group."""
    return as_array(x)


def all_gather(x: Any, *, group: Group | None = None) -> array:
    """The group's arrays, one after the other along the first axis."""
    return as_array(x)
