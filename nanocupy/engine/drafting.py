"""Drafts from the text itself: what followed the same tokens before (prompt lookup).

Text that quotes, edits or lists repeats itself. The longer the match, the more likely it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

SIZES = (8, 4, 2)  # tokens of a match, the best first


class Drafter:
    """Finds where the last tokens of one growing sequence stood before.

    The index is brought up to date by `find`; each token costs an entry per size, once, however
    long the sequence is.
    """

    def __init__(self) -> None:
        self._ends: dict[int, dict[tuple[int, ...], int]] = {size: {} for size in SIZES}
        self._indexed = 0  # n-grams that end before this position are in the index

    def find(self, tokens: Sequence[int]) -> tuple[int, int] | None:
        """Find the last earlier occurrence of the longest suffix of `tokens` that has one.

        Args:
            tokens: those of the last call, and more.

        Returns:
            (tokens that match, position of what followed them), or None.
        """
        end = len(tokens)
        for stop in range(self._indexed, end):  # the suffix itself is left out: it is no match
            for size in SIZES:
                if stop >= size:
                    self._ends[size][tuple(tokens[stop - size : stop])] = stop
        self._indexed = max(self._indexed, end)
        for size in SIZES:
            if end >= size and (found := self._ends[size].get(tuple(tokens[end - size :]))):
                return size, found
        return None


def repeat_from(tokens: Sequence[int], start: int, count: int) -> list[int]:
    """Return the `count` tokens that follow from position `start` on.

    Where the sequence ends, the draft repeats itself.
    """
    period = len(tokens) - start
    return [tokens[start + i % period] for i in range(count)]
