"""What a step costs, and what a drafted token adds to it: measured while the engine runs."""

from __future__ import annotations

from collections import deque
from statistics import median

KEPT = (
    7  # the last measurements; of plain steps the median counts, so that a disturbed one does not
)
FRESH = 32  # steps with drafts after which the time of one without is measured again
GUESS, WEIGHT = 0.25, 8  # the price before any is measured, and for how many rows that stands
HIGHEST = 2.0  # price that is believed: one row more is measured badly among many


class StepTimes:
    """Times of steps in which every request generates, by how many requests there are."""

    def __init__(self) -> None:
        self._plain: dict[int, deque[float]] = {}
        self._drafts: dict[int, deque[tuple[int, float]]] = {}  # (rows, what they cost in tokens)
        self._age: dict[int, int] = {}  # steps with drafts since the last without

    def add(self, requests: int, drafted: int, seconds: float) -> float:
        """A step of `requests` with `drafted` more tokens took `seconds`.

        Returns:
            How many tokens would have been made without drafts in the time that these took.
        """
        if not drafted:
            self._plain.setdefault(requests, deque(maxlen=KEPT)).append(seconds)
            self._age[requests] = 0
            return 0.0
        token = median(self._plain[requests]) / requests if requests in self._plain else 0.0
        if not token:
            return 0.0
        cost = min(max(seconds / token - requests, 0.0), HIGHEST * drafted)
        self._drafts.setdefault(requests, deque(maxlen=KEPT)).append((drafted, cost))
        self._age[requests] += 1
        return cost

    def price(self, requests: int) -> float | None:
        """What a drafted token costs: the part of the time in which a token is made without.

        A draft pays where it is right more often than this. None where a step without drafts has
        to be measured first.
        """
        if self._age.get(requests, FRESH) >= FRESH:
            return None
        found = self._drafts.get(requests, ())
        rows, cost = sum(n for n, _ in found), sum(cost for _, cost in found)
        return (WEIGHT * GUESS + cost) / (WEIGHT + rows)
