"""Speculation: guess the next tokens, compute all of them in one step, keep those that are right.

No token changes. A guess is a row of the step like any other; what is sampled from each row is what
would be sampled without guesses, because neither a row's bits nor its random number depend on what
else is in the step. As long as the sampled token is the guessed one, the next row has been computed
on the right history and counts too. The first that differs is still a token; what follows it is
dropped.

Guesses cost time, so they have to pay: see `Trust` for how many are made, `StepTimes` for what
they cost. What they lose all the same is bounded: `PromptLookup` keeps an account of it, for all
requests together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from nanocupy.engine.drafting import SIZES, Drafter, repeat_from

if TYPE_CHECKING:
    from nanocupy.engine.batch import Sampled, Scheduled
    from nanocupy.engine.request import Request

START = dict(zip(SIZES, (0.9, 0.6, 0.4), strict=True))  # chances before anything is known
LEARN = 0.4  # how much the newest draft counts in a chance
SURE, CHEAP = 0.97, 0.02  # no chance is above, no price below
PAUSE, LONGEST_PAUSE = 4, 256
LOSS = 0.01  # the part of all tokens that guesses may cost in the long run
CREDIT = 4.0  # tokens that guesses which promise to pay may cost before that
SAVED = 8.0  # tokens gained by guesses that later ones may lose again
KEPT = 7  # times that are remembered; of plain steps the median counts, against disturbed ones
FRESH = 32  # steps with drafts after which the time of one without is measured again
GUESS, WEIGHT = 0.25, 8  # the price before any is measured, and for how many rows that stands
HIGHEST = 2.0  # price that is believed: one row more is measured badly among many


@dataclass
class Trust:
    """How far to follow the matches of one size, in one request.

    A draft's i-th token is right with `chance ** i`, and is made while that is above its price. So
    drafts grow as they are right and shrink as they fail. Where not even the first one pays, a
    single one is tried now and then, after pauses of which each is twice as long.
    """

    chance: float
    pause: int = 0  # matches still to be let pass
    next_pause: int = PAUSE

    def length(self, price: float, may_try: bool = True) -> int:
        """Return how many tokens of a match to draft; without `may_try` only if that should pay."""
        price = max(price, CHEAP)
        if self.chance > price:
            self.pause = self.next_pause = PAUSE
            return int(log(price) / log(self.chance))
        if self.pause or not may_try:
            self.pause = max(self.pause - 1, 0)
            return 0
        self.pause = self.next_pause
        self.next_pause = min(2 * self.next_pause, LONGEST_PAUSE)
        return 1

    def update(self, drafted: int, accepted: int) -> None:
        """Learn that of `drafted` tokens the first `accepted` were right."""
        seen = 1.0 if accepted == drafted else accepted / (accepted + 1)
        self.chance = min(self.chance + LEARN * (seen - self.chance), SURE)


class RequestDrafts:
    """The drafter of one request, and its trust in matches of each size."""

    def __init__(self) -> None:
        self.drafter = Drafter()
        self.trust = {size: Trust(chance) for size, chance in START.items()}
        self.size = SIZES[-1]  # of the match that the last draft came from

    def draft(self, tokens: Sequence[int], price: float, most: int, may_try: bool) -> list[int]:
        """Return a draft of at most `most` tokens; empty where it would not pay."""
        found = self.drafter.find(tokens)
        if found is None or most < 1:
            return []
        self.size, start = found
        return repeat_from(tokens, start, min(self.trust[self.size].length(price, may_try), most))


class PromptLookup:
    """The engine's `Speculator`: drafts what followed the same tokens before.

    Args:
        most: tokens drafted per request and step.
        clock: seconds, for the times of steps.
    """

    def __init__(self, most: int, clock: Callable[[], float] = perf_counter) -> None:
        self.most = most
        self.clock = clock
        self.times = StepTimes()
        self.debt = 0.0  # tokens that could have been made in the time that drafts have lost
        self._accepted = 0  # drafted tokens of this step that were right
        self._start = 0.0  # of this step
        self._requests: dict[Request, RequestDrafts] = {}

    def draft(self, batch: Sequence[Scheduled], rows: int, samples: int) -> list[list[int]]:
        """Guess what follows each request. Steps with prompts get no drafts: their rows are
        better used, and their times say nothing."""
        self._start = self.clock()
        price = self.times.price(len(batch)) if _all_decode(batch) else None
        if price is None or self.debt > CREDIT:
            return []
        left = min(rows, samples)
        drafts: list[list[int]] = []
        may_try = self.debt <= 0
        for index, item in enumerate(batch):
            request, share = item.request, left // (len(batch) - index)
            most = min(
                self.most, share, request.limit + request.num_prompt - len(request.tokens) - 1
            )
            if (known := self._requests.get(request)) is None:
                known = self._requests[request] = RequestDrafts()
            draft = known.draft(request.tokens, price, most, may_try)
            may_try = may_try and not draft  # one attempt in a step is enough
            left -= len(draft)
            drafts.append(draft)
        return drafts

    def verify(self, item: Scheduled, sampled: list[Sampled]) -> list[Sampled]:
        """Return the answers to `item` that were computed on the right tokens."""
        right = 0
        while right < len(item.draft) and sampled[right].token == item.draft[right]:
            right += 1
        known, group = self._requests[item.request], item.request.group
        known.trust[known.size].update(len(item.draft), right)
        group.drafted += len(item.draft)
        group.accepted += right
        self._accepted += right
        return sampled[: right + 1]

    def end_step(self, batch: Sequence[Scheduled]) -> None:
        """Learn from the time of a step in which every request generates."""
        if _all_decode(batch):
            drafted = 0
            for item in batch:
                drafted += len(item.draft)
            cost = self.times.add(len(batch), drafted, self.clock() - self._start)
            self.debt -= min(LOSS * len(batch), max(self.debt, 0.0))
            self.debt = max(self.debt + cost - self._accepted, -SAVED)
        self._accepted = 0

    def forget(self, request: Request) -> None:
        """Drop the state of a request that has ended."""
        self._requests.pop(request, None)


def _all_decode(batch: Sequence[Scheduled]) -> bool:
    """True where every request of the step generates: all its rows are drawn."""
    for item in batch:
        if len(item.tokens) != len(item.sample) or item.sample[0].target >= 0:
            return False
    return bool(batch)


class StepTimes:
    """Times of steps in which every request generates, by how many requests there are."""

    def __init__(self) -> None:
        self._plain: dict[int, deque[float]] = {}
        self._drafts: dict[int, deque[tuple[int, float]]] = {}  # (rows, what they cost in tokens)
        self._age: dict[int, int] = {}  # steps with drafts since the last without

    def add(self, requests: int, drafted: int, seconds: float) -> float:
        """Record that a step of `requests` with `drafted` more tokens took `seconds`.

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
        """Return the cost of a drafted token, in tokens made without drafts in the same time.

        A draft pays where it is right more often than this. None where a step without drafts has
        to be measured first.
        """
        if self._age.get(requests, FRESH) >= FRESH:
            return None
        rows, total = WEIGHT, WEIGHT * GUESS
        for drafted, cost in self._drafts.get(requests, ()):
            rows, total = rows + drafted, total + cost
        return total / rows
