"""Everything ranks tell each other on the host. Prints "well" on rank 0."""

from __future__ import annotations

import os

import numpy as np

from nanocupy.distributed import RankError, world


def raised(work: object) -> str:
    try:
        world().exchange(work)  # type: ignore[arg-type]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was raised")


def fail() -> bytes:
    raise ValueError("no")


group = world()
rank, size = group.rank(), group.size()
assert world() is group and group.local_rank == rank and group.local_size == size
assert group.threads == max(1, os.cpu_count() // size)  # type: ignore[operator]

# Pieces of every length, none and more than a message's.
for length in (0, 1, 5_000_000):
    told = group.exchange(lambda n=length: bytes([rank]) * (n * (rank + 1)))  # type: ignore[misc]
    assert told == [bytes([r]) * (length * (r + 1)) for r in range(size)]

# An error on one rank is one on all; its own where it happened. The group goes on.
assert raised(fail if rank == 1 else bytes) == (
    "ValueError: no" if rank == 1 else "RankError: rank 1: ValueError: no"
)
assert raised(fail) == "ValueError: no"
assert group.all_or_none(lambda: rank * 10) == rank * 10
order = group.window(4096)


def after_the_first() -> int:
    order[rank] = 1
    return int(order[0])


assert group.local_rank_0_first(after_the_first) == 1  # whoever comes later finds what rank 0 left

x = np.arange(3, dtype=np.float32) + rank
assert group.all_sum(x).tolist() == [size * i + size * (size - 1) / 2 for i in range(3)]
assert group.all_max(x).tolist() == [size - 1, size, size + 1]
assert [part.tolist() for part in group.all_gather(x)] == [[r, r + 1, r + 2] for r in range(size)]
assert group.broadcast(lambda: b"from 0") == b"from 0"

# Records: in order, of any length.
records = [bytes([i]) * n for i, n in enumerate((0, 1, 100, 4096, 3_000_000))]
if rank == 0:
    for record in records:
        group.send_record(record)  # type: ignore[attr-defined]
else:
    assert [group.receive_record() for _ in records] == records  # type: ignore[attr-defined]

# Memory that all see.
window = group.window(1 << 20)
assert window.ctypes.data % 64 == 0 and not window.any()
group.barrier()
window[rank] = rank + 1
group.barrier()
assert window[:size].tolist() == list(range(1, size + 1))
group.free(window)
group.free(order)

if rank == 0:
    try:
        group.check()
        print("well")
    except RankError as error:
        print(error)
