"""The memory that the CPU devices of a group share, for collectives.

It holds a cache line for every thread of every rank, in which the thread publishes how far it is,
then slots for data, two of SLOT bytes for every rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LINE = 64  # bytes of a cache line
SLOT = 1 << 20


class Link(NamedTuple):
    """The connection of a CPU device with those of other ranks.

    Attributes:
        window: uint8 [window_bytes], on a cache line: the same memory on all ranks, zeros at
            first. Every rank has the same number of threads.
        rank, ranks: number of this rank, and how many there are.
        abort: int64 [1] of this process alone. If not zero, kernels stop waiting and fail with
            code 9.
    """

    window: np.ndarray
    rank: int
    ranks: int
    abort: np.ndarray


def window_bytes(ranks: int, threads: int) -> int:
    """Bytes of the window of a group with `threads` threads on each rank."""
    return LINE * ranks * threads + 2 * SLOT * ranks
