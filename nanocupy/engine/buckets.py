"""The sizes of captured steps; every step runs in the smallest that holds it.

A CPU kernel looks up how many rows there are, so one size serves all. A CUDA graph launches a fixed
number of blocks, so it has a size for steps that decode and a few for steps with prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SMALLEST_PROMPT = 16  # rows of the smallest size for prompts


class Bucket(NamedTuple):
    """The most that a step of this size holds.

    Attributes:
        rows: tokens.
        samples: rows that are sampled.
        decode_rows: rows that attend by themselves.
        prefill_tiles: groups of neighbouring rows that attend together.
    """

    rows: int
    samples: int
    decode_rows: int = 0
    prefill_tiles: int = 0

    def holds(self, need: Bucket) -> bool:
        """True where a step of the size `need` fits."""
        return (
            self.rows >= need.rows
            and self.samples >= need.samples
            and self.decode_rows >= need.decode_rows
            and self.prefill_tiles >= need.prefill_tiles
        )


def buckets(max_rows: int, max_samples: int, max_seqs: int, tile: int) -> list[Bucket]:
    """Return the sizes for a GPU, smallest first; the last holds every step.

    Args:
        tile: rows of a prompt that attend together; 0 where every row attends by itself.
    """
    decode = [Bucket(n, n, n) for n in _sizes(1, max_seqs)]
    prompts = []
    for rows in _sizes(SMALLEST_PROMPT, max_rows):
        decode_rows, tiles = rows, 0
        if tile:
            decode_rows, tiles = min(rows, max_seqs), min(rows, rows // tile + max_seqs)
        prompts.append(Bucket(rows, max_samples, decode_rows, tiles))
    return decode + prompts


def _sizes(first: int, last: int) -> list[int]:
    """Powers of two from `first`, steps of 16 up to 64, and `last`."""
    sizes, size = [], first
    while size < last:
        sizes.append(size)
        size = size + 16 if 16 <= size < 64 else size * 2
    return [*sizes, last]


def smallest(sizes: Sequence[Bucket], need: Bucket) -> int:
    """Return the index of the first size that holds the step."""
    return next(i for i, bucket in enumerate(sizes) if bucket.holds(need))


def split_rows(
    lengths: Sequence[int], tile: int, decode_rows: np.ndarray, prefill_tiles: np.ndarray
) -> tuple[int, int]:
    """Split a step into decode rows and prefill tiles; return the number of each.

    Args:
        lengths: rows of each sequence in the step, in order.
        tile: as for `buckets`.
        decode_rows, prefill_tiles: written, as `kernels.attention.RowSplit` describes them.
    """
    start, decoding, tiles = 0, 0, 0
    for index, count in enumerate(lengths):
        if count == 1 or not tile:
            decode_rows[decoding : decoding + count] = range(start, start + count)
            decoding += count
        else:
            for first in range(0, count, tile):
                prefill_tiles[tiles] = start + first, min(tile, count - first), index, 0
                tiles += 1
        start += count
    return decoding, tiles
