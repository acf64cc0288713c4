"""What a step costs, and what a drafted token adds to it: measured while the engine runs."""

from __future__ import annotations

from collections import deque
from statistics import median

KEPT = 7  # the last measurements, of which the median counts: one step that was disturbed does not
FRESH = 32  # steps with drafts after which the time of one without is measured again
GUESS = 0.25  # the price where nothing has been measured


class StepTimes:
    """Times of steps in which every request generates, by how many requests there are."""

    def __init__(self) -> None:
        self._plain: dict[int, deque[float]] = {}
        self._prices: dict[int, deque[float]] = {}
        self._age: dict[int, int] = {}  # steps with drafts since the last without

    def add(self, requests: int, drafted: int, seconds: float) -> None:
        """A step of `requests` with `drafted` more tokens took `seconds`."""
        if not drafted:
            self._plain.setdefault(requests, deque(maxlen=KEPT)).append(seconds)
            self._age[requests] = 0
        elif times := self._plain.get(requests):
            token = median(times) / requests  # seconds that a token takes without drafts
            price = (seconds / token - requests) / drafted if token else 0.0
            self._prices.setdefault(requests, deque(maxlen=KEPT)).append(price)
            self._age[requests] += 1

    def price(self, requests: int) -> float | None:
        """What a drafted token costs: the part of the time in which a token is made without.

        A draft pays where it is right more often than this. None where a step without drafts has
        to be measured first.
        """
        if self._age.get(requests, FRESH) >= FRESH:
            return None
        return median(self._prices.get(requests, (GUESS,)))
