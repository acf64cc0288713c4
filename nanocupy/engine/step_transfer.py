"""A step's buffers as bytes for other ranks: of each array the part that the step uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def pack(host: Any, sequences: int, columns: int, edits: int) -> bytes:
    """Return the used parts of the arrays, `host` of StepBuffers, one after another.

    Args:
        sequences, columns: lines of the block tables that are used, and how much of each.
        edits: changed logits.
    """
    return b"".join(view.tobytes() for view in _used(host, sequences, columns, edits))


def unpack(data: memoryview, host: Any, sequences: int, columns: int, edits: int) -> None:
    """Write what another rank's `pack` returned into `host`."""
    start = 0
    for view in _used(host, sequences, columns, edits):
        stop = start + view.nbytes
        view[...] = np.frombuffer(data[start:stop], view.dtype).reshape(view.shape)
        start = stop
    assert start == len(data)


def _used(to: Any, sequences: int, columns: int, edits: int) -> Iterator[np.ndarray]:
    """Yield the parts that a step uses; the first has the sizes of the others."""
    yield to.counts
    rows, samples, decoding, tiles = (int(n) for n in to.counts)
    yield from (to.tokens[:rows], to.positions[:rows], to.sequences[:rows], to.slots[:rows])
    yield from (to.decode_rows[:decoding], to.prefill_tiles[:tiles], to.sample_rows[:samples])
    yield from (to.floats[:samples], to.top_k[:samples], to.target[:samples])
    yield from (to.edit_start[: samples + 1], to.edits[:edits])
    yield to.block_tables[:sequences, :columns]
