"""Ranks without MPI: in name alone, and as threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from nanocupy.distributed import Group, RankError

LIMIT = 60  # seconds that one waits for another


class Place(Group):
    """A rank that tells the others nothing: enough to record, and for a device."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size


class ThreadGroup(Place):
    """A rank that is a thread of this process."""

    def __init__(self, rank: int, told: list[Any], barrier: threading.Barrier) -> None:
        super().__init__(rank, len(told))
        self._told, self._barrier = told, barrier

    def exchange(self, work: Callable[[], bytes]) -> list[bytes]:
        try:
            self._told[self.rank()] = work()
        except Exception as error:
            self._told[self.rank()] = error
        self._barrier.wait(LIMIT)
        told = list(self._told)
        self._barrier.wait(LIMIT)
        errors = {rank: word for rank, word in enumerate(told) if isinstance(word, Exception)}
        if self.rank() in errors:
            raise errors[self.rank()]
        for rank, error in errors.items():
            raise RankError(f"rank {rank}: {type(error).__name__}: {error}")
        return told


def on_threads(size: int, work: Callable[[Group], Any]) -> list[Any]:
    """What `work(group)` gives on each rank. Raises what one of them raised first."""
    told: list[Any] = [b""] * size
    barrier, out, errors = threading.Barrier(size), [None] * size, []

    def one(rank: int) -> None:
        try:
            out[rank] = work(ThreadGroup(rank, told, barrier))
        except BaseException as error:
            errors.append(error)
            barrier.abort()  # nobody waits for one that is gone

    ranks = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    if errors:
        raise errors[0]
    return out
