"""Groups of processes: who is in one, and what they tell each other on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np  # the command line asks for its rank before NumPy is loaded

Work = Callable[[], bytes]
T = TypeVar("T")


class RankError(RuntimeError):
    """A rank of a group failed or stalled; the message says which."""


def shares(count: int, ranks: int) -> list[range]:
    """Split range(count) into one range per rank; their lengths differ by at most one."""
    return [range(count * r // ranks, count * (r + 1) // ranks) for r in range(ranks)]


class Group:
    """A group of processes, each with a rank. This class is a group of one.

    Collective methods are called by every rank, in the same order, with arguments that fit.

    Attributes:
        local_rank, local_size: number of this rank on this host, and how many are on it.
        threads: default number of CPU threads for this rank; None: all that it may use.
    """

    local_rank, local_size = 0, 1
    threads: int | None = None

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 1

    def share(self, count: int) -> range:
        """This rank's part of range(count); see `shares`."""
        return shares(count, self.size())[self.rank()]

    # ---- on the host

    def exchange(self, work: Work) -> list[bytes]:
        """Call `work` on every rank; all ranks get all results, by rank. All raise, or none.

        Raises:
            Exception: what `work` raised here.
            RankError: it raised on another rank; with its message.
        """
        return [work()]

    def all_or_none(self, work: Callable[[], T]) -> T:
        """Call `work` on every rank; each keeps its result. All raise, or none."""
        made: list[T] = []
        self.exchange(lambda: made.append(work()) or b"")  # type: ignore[func-returns-value]
        return made[0]

    def local_rank_0_first(self, work: Callable[[], T]) -> T:
        """As `all_or_none`, but the first rank of each host is done before the others start, and
        fills the caches for them."""
        made: list[T] = []
        for turn in (True, False) if self.size() > 1 else (True,):
            if turn == (self.local_rank == 0):
                made.append(self.all_or_none(work))
            else:
                self.all_or_none(int)
        return made[0]

    def broadcast(self, work: Work) -> bytes:
        """Call `work` on rank 0 alone; all ranks get its result."""
        return self.exchange(work if self.rank() == 0 else bytes)[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.exchange(bytes)

    def check(self) -> None:
        """Raise RankError if a rank has failed or stalled. Every wait for others calls this."""

    @contextmanager
    def step(self, work: Any = None, patience: int = 1) -> Iterator[None]:
        """A step that every rank takes part in; see `Heartbeat.begin`."""
        yield

    # ---- memory that all ranks of a host see

    def window(self, nbytes: int) -> np.ndarray:
        """uint8 [nbytes] of zeros, on a cache line: the same memory on every rank.

        Raises:
            ValueError: the ranks are on several hosts.
        """
        import numpy as np

        return np.zeros(nbytes, np.uint8)

    def free(self, window: np.ndarray) -> None:
        """Release a window; every rank does."""

    # ---- arrays on the host

    def all_gather(self, x: np.ndarray) -> list[np.ndarray]:
        """Every rank's array, by rank. Their dtypes and all dimensions but the first are equal."""
        import numpy as np

        parts = self.exchange(np.ascontiguousarray(x).tobytes)
        return [np.frombuffer(part, x.dtype).reshape(-1, *x.shape[1:]) for part in parts]

    def all_sum(self, x: np.ndarray) -> np.ndarray:
        """The sum over all ranks, added in the order of ranks."""
        import numpy as np

        return self._fold(np.add, x)

    def all_max(self, x: np.ndarray) -> np.ndarray:
        """The maximum over all ranks, element by element."""
        import numpy as np

        return self._fold(np.maximum, x)

    def _fold(self, function: Any, x: np.ndarray) -> np.ndarray:
        first, *others = self.all_gather(x.reshape(-1))
        for part in others:
            first = function(first, part)
        return first.reshape(x.shape)


ONE = Group()
