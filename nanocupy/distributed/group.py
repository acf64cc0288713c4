"""Groups of processes: who is in one, and what they tell each other on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np  # and where it is used: the command line asks for a rank before NumPy

Work = Callable[[], bytes]
T = TypeVar("T")


class RankError(RuntimeError):
    """A rank of a group failed or stalled; the message names it."""


def shares(count: int, ranks: int) -> list[range]:
    """Every rank's part of `count` things: neighbours, as many on every rank or one more."""
    return [range(count * r // ranks, count * (r + 1) // ranks) for r in range(ranks)]


class Group:
    """A group of processes, each with a rank. This one is a group of one: nothing is done.

    Collective methods are called by every rank, in the same order, with arguments that fit.

    Attributes:
        local_rank, local_size: this one, and how many, on this host.
        threads: CPU threads for this rank where nobody says how many; None: all that it may use.
    """

    local_rank, local_size = 0, 1
    threads: int | None = None

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 1

    def share(self, count: int) -> range:
        """This rank's part of `count` things; see `shares`."""
        return shares(count, self.size())[self.rank()]

    # ---- on the host

    def exchange(self, work: Work) -> list[bytes]:
        """Every rank does its work; every rank gets what all of them returned, by rank.

        Raises:
            Exception: what this rank's own work raised.
            RankError: another rank's raised; the message has its words. So all ranks raise or none.
        """
        return [work()]

    def together(self, work: Callable[[], T]) -> T:
        """Every rank does its work and keeps the result; errors are shared as in `exchange`."""
        made: list[T] = []
        self.exchange(lambda: made.append(work()) or b"")  # type: ignore[func-returns-value]
        return made[0]

    def in_turn(self, work: Callable[[], T]) -> T:
        """The same, where the first rank of each host is done before the others start.

        What it leaves in caches is there for them.
        """
        made: list[T] = []
        for turn in (True, False) if self.size() > 1 else (True,):
            if turn == (self.local_rank == 0):
                made.append(self.together(work))
            else:
                self.together(int)
        return made[0]

    def broadcast(self, work: Work) -> bytes:
        """What the work gave on rank 0; the others do none."""
        return self.exchange(work if self.rank() == 0 else bytes)[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.exchange(bytes)

    def check(self) -> None:
        """Raise RankError where a rank has failed or stalled: for whoever waits for others."""

    @contextmanager
    def step(self, work: Any = None, patience: int = 1) -> Iterator[None]:
        """Something that every rank takes part in, without pause; see `Watch.begin`."""
        yield

    # ---- memory that all ranks of a host see

    def window(self, nbytes: int) -> np.ndarray:
        """uint8 [nbytes] of zeros: the same memory on every rank.

        Raises:
            ValueError: the ranks are on several hosts.
        """
        import numpy as np

        return np.zeros(nbytes, np.uint8)

    def free(self, window: np.ndarray) -> None:
        """Release a window; every rank does."""

    # ---- arrays on the host

    def all_gather(self, x: np.ndarray) -> list[np.ndarray]:
        """Every rank's array, by rank. They have one dtype and all but the first dimension."""
        import numpy as np

        parts = self.exchange(np.ascontiguousarray(x).tobytes)
        return [np.frombuffer(part, x.dtype).reshape(-1, *x.shape[1:]) for part in parts]

    def all_sum(self, x: np.ndarray) -> np.ndarray:
        """The sum over all ranks, added in the order of ranks."""
        import numpy as np

        return self._fold(np.add, x)

    def all_max(self, x: np.ndarray) -> np.ndarray:
        """The largest of all ranks, element by element."""
        import numpy as np

        return self._fold(np.maximum, x)

    def _fold(self, function: Any, x: np.ndarray) -> np.ndarray:
        first, *others = self.all_gather(x.reshape(-1))
        for part in others:
            first = function(first, part)
        return first.reshape(x.shape)


ONE = Group()
