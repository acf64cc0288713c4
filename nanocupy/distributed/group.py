"""Groups of processes: who is in one, and what they tell each other on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Work = Callable[[], bytes]


class RankError(RuntimeError):
    """A rank of a group failed or stalled; the message names it. The group is of no more use."""


class Group:
    """A group of processes, each with a rank. This one is a group of one: nothing is done.

    Collective methods are called by every rank, in the same order, with arguments that fit.
    """

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 1

    def share(self, count: int) -> range:
        """This rank's part of `count` things: neighbours, as many on every rank or one more."""
        rank, size = self.rank(), self.size()
        return range(count * rank // size, count * (rank + 1) // size)

    # ---- on the host

    def exchange(self, work: Work) -> list[bytes]:
        """Every rank does its work; every rank gets what all of them returned, by rank.

        Raises:
            Exception: what this rank's own work raised.
            RankError: another rank's raised; the message has its words. So all ranks raise or none.
        """
        return [work()]

    def broadcast(self, work: Work) -> bytes:
        """What the work gave on rank 0; the others do none."""
        return self.exchange(work if self.rank() == 0 else bytes)[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.exchange(bytes)

    def check(self) -> None:
        """Raise RankError where a rank is known to have failed: for whoever waits for others."""

    # ---- arrays on the host

    def all_gather(self, x: np.ndarray) -> list[np.ndarray]:
        """Every rank's array, by rank. They have one dtype and all but the first dimension."""
        parts = self.exchange(np.ascontiguousarray(x).tobytes)
        return [np.frombuffer(part, x.dtype).reshape(-1, *x.shape[1:]) for part in parts]

    def all_sum(self, x: np.ndarray) -> np.ndarray:
        """The sum over all ranks, added in the order of ranks."""
        return self._fold(np.add, x)

    def all_max(self, x: np.ndarray) -> np.ndarray:
        """The largest of all ranks, element by element."""
        return self._fold(np.maximum, x)

    def _fold(self, function: Any, x: np.ndarray) -> np.ndarray:
        first, *others = self.all_gather(x.reshape(-1))
        for part in others:
            first = function(first, part)
        return first.reshape(x.shape)


ONE = Group()
