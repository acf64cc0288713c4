"""Callers on event loops: how results reach them, and how many may begin at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence

from nanocupy.engine.driver import Result, Ticket, unwrap
from nanocupy.engine.outputs import Chunk

AT_ONCE = 32  # requests that begin in one turn of an event loop


class LoopQueue:
    """The results of one request that have not been read yet, for a caller on an event loop.

    Thousands may wait, so it is small.

    Args:
        whole: the call waits for the whole answer, not for its pieces.
    """

    __slots__ = ("_results", "_waiter", "loop", "whole")

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.loop = asyncio.get_running_loop()
        self._results: deque[Result] = deque()
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> Chunk:
        """Return the next piece, or raise the exception that came instead."""
        while not self._results:
            self._waiter = self.loop.create_future()
            await self._waiter
        return unwrap(self._results.popleft())

    def put(self, results: Sequence[Result]) -> None:
        """Add results; called on the loop's own thread."""
        self._results += results
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class StartLimiter:
    """Lets a few requests begin in each turn of an event loop, so that others on it go on."""

    def __init__(self) -> None:
        self._begun = 0  # in this turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Wait while too many have begun in this turn."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._next_turn)
        if self._begun < AT_ONCE and not self._waiting:
            self._begun += 1
        else:
            self._waiting.append(loop.create_future())
            await self._waiting[-1]

    def _next_turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < AT_ONCE:
            if not (first := self._waiting.popleft()).done():  # else it was cancelled
                first.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)


def deliver_to_loops(found: Mapping[Ticket, Sequence[Result]]) -> list[Ticket]:
    """Deliver to tickets whose callers are on event loops: one wake-up for each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Sequence[Result]]]] = {}
    for ticket, results in found.items():
        loops.setdefault(ticket.caller.loop, []).append((ticket, results))
    gone: list[Ticket] = []
    for loop, items in loops.items():
        try:
            loop.call_soon_threadsafe(_put, items)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            gone += [ticket for ticket, _ in items]
    return gone


def _put(items: Sequence[tuple[Ticket, Sequence[Result]]]) -> None:
    for ticket, results in items:
        ticket.caller.put(results)
