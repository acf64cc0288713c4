"""Speculation: guess the next tokens, compute all of them in one step, keep those that are right.

No token changes. A guess is a row of the step like any other; what is sampled from each row is what
would be sampled without guesses, because neither a row's bits nor its random number depend on what
else is in the step. As long as the sampled token is the guessed one, the next row has been computed
on the right history and counts too. The first that differs is still a token; what follows it is
dropped.

Guesses cost time, so they have to pay: see `Trust` for how many are made, `StepTimes` for what
they cost. What they lose all the same is bounded: `Speculator` keeps an account of it, for all
requests together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log
from time import perf_counter
from typing import TYPE_CHECKING

from nanocupy.engine.drafting import SIZES, Drafter, draft
from nanocupy.engine.step_times import StepTimes

if TYPE_CHECKING:
    from nanocupy.engine.batch import Sampled, Scheduled

MOST = 16  # tokens drafted per request and step, where nobody says
START = dict(zip(SIZES, (0.9, 0.6, 0.4), strict=True))  # chances before anything is known
LEARN = 0.4  # how much the newest draft counts in a chance
SURE, CHEAP = 0.97, 0.02  # no chance is above, no price below
PAUSE, LONGEST_PAUSE = 4, 256
LOSS = 0.01  # the part of all tokens that guesses may cost in the long run
CREDIT = 4.0  # tokens that guesses which promise to pay may cost before that
SAVED = 8.0  # tokens gained by guesses that later ones may lose again


def most_drafted(speculate: int | None, row_invariant: bool) -> int:
    """How many tokens a request may have drafted in a step, by the option and the device.

    Raises:
        ValueError: drafts are asked for where they could change tokens.
    """
    if speculate and not row_invariant:
        raise ValueError(
            f"[EngineOptions] speculate={speculate} needs a device on which a token does not "
            "depend on what else is in its step, and that is the CPU: leave it out or give 0"
        )
    return (MOST if row_invariant else 0) if speculate is None else speculate


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
        """How many tokens of a match to draft; without `may_try` only what promises to pay."""
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

    def settle(self, drafted: int, accepted: int) -> None:
        """Of `drafted` tokens the first `accepted` were right."""
        seen = 1.0 if accepted == drafted else accepted / (accepted + 1)
        self.chance = min(self.chance + LEARN * (seen - self.chance), SURE)


@dataclass
class Guesses:
    """What one request needs to be guessed, and how that went."""

    drafter: Drafter = field(default_factory=Drafter)
    trust: dict[int, Trust] = field(
        default_factory=lambda: {size: Trust(chance) for size, chance in START.items()}
    )
    size: int = SIZES[-1]  # of the match that the last draft came from
    drafted: int = 0
    accepted: int = 0

    def draft(self, tokens: Sequence[int], price: float, most: int, may_try: bool) -> list[int]:
        """At most `most` tokens that may follow; none where they would not pay."""
        found = self.drafter.find(tokens)
        if found is None or most < 1:
            return []
        self.size, start = found
        return draft(tokens, start, min(self.trust[self.size].length(price, may_try), most))

    def settle(self, drafted: int, accepted: int) -> None:
        """Of the last draft the first `accepted` tokens were right."""
        self.trust[self.size].settle(drafted, accepted)
        self.drafted += drafted
        self.accepted += accepted


class Speculator:
    """Decides what is drafted in a step, and what of it stands.

    Args:
        most: tokens drafted per request and step; 0 = none.
        clock: seconds, for the times of steps.
    """

    def __init__(self, most: int, clock: Callable[[], float] = perf_counter) -> None:
        self.most = most
        self.clock = clock
        self.times = StepTimes()
        self.right = 0  # drafted tokens of this step that stand
        self.debt = 0.0  # tokens that could have been made in the time that guesses have lost

    def drafts(self, plan: Sequence[Scheduled], rows: int, samples: int) -> list[list[int]]:
        """A draft, mostly empty, for each request of a step that leaves `rows` and `samples`.

        Steps with prompts get none: their rows are better used, and their times say nothing.
        """
        price = self.times.price(len(plan)) if self.most and _generates(plan) else None
        if price is None or self.debt > CREDIT:
            return [[] for _ in plan]
        left = min(rows, samples)
        found: list[list[int]] = []
        for index, item in enumerate(plan):
            request, share = item.request, left // (len(plan) - index)
            most = min(self.most, share, request.limit - request.num_generated - 1)
            may_try = self.debt <= 0 and not any(found)  # one in a step is enough
            found.append(request.guesses.draft(request.tokens, price, most, may_try))
            left -= len(found[-1])
        return found

    def verify(self, item: Scheduled, sampled: list[Sampled]) -> list[Sampled]:
        """Those of the answers to `item` that were computed on the right tokens."""
        if not item.draft:
            return sampled
        right = 0
        while right < len(item.draft) and sampled[right].token == item.draft[right]:
            right += 1
        item.request.guesses.settle(len(item.draft), right)
        self.right += right
        return sampled[: right + 1]

    def observe(self, plan: Sequence[Scheduled], start: float) -> None:
        """The step that began at `start` of the clock is done."""
        if self.most and _generates(plan):
            drafted = sum(len(item.draft) for item in plan)
            cost = self.times.add(len(plan), drafted, self.clock() - start)
            self.debt -= min(LOSS * len(plan), max(self.debt, 0.0))
            self.debt = max(self.debt + cost - self.right, -SAVED)
        self.right = 0


def _generates(plan: Sequence[Scheduled]) -> bool:
    """True where every request of the step generates: all its rows are drawn."""
    return bool(plan) and all(
        len(item.tokens) == len(item.sample) and item.sample[0].target < 0 for item in plan
    )
