"""Driver: an inbox, and one owner at a time who steps. It is under LLM and AsyncLLM alike.

Requests come from any thread and wait in line; whoever holds `_stepping` owns the engine: it ends
what was given up, takes in what the engine can soon use, steps, and hands out what that made. With
AsyncLLM the owner is a thread of its own (`serve`). With LLM it is one of those who wait for an
answer (`wait`), for all of them; who leaves wakes another.

Between two steps only so much is taken in and ended, however much has come: see `TAKEN`, `ENDED`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from nanocupy.engine.interrupts import uninterrupted
from nanocupy.engine.outputs import Chunk

if TYPE_CHECKING:
    from nanocupy.engine.engine import Engine
    from nanocupy.engine.frontend import Asked

TAKEN = 64  # requests that wait inside the engine (or one per seat); the others are in line
ENDED = 64  # requests that are ended between two steps, at most

News = Chunk | Exception


class EngineDeadError(RuntimeError):
    """The engine has ended, or belongs to another process; nothing is served."""


class QueueFullError(RuntimeError):
    """Nobody else may wait: `waiting` requests are there, as many as `limit` allows."""

    def __init__(self, message: str, waiting: int, limit: int) -> None:
        super().__init__(message)
        self.waiting = waiting
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.waiting, self.limit), self.__dict__


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's place: who waits for it, what was asked, and how far it has come."""

    id: str
    caller: Any  # whoever `hand_out` gives its news to
    asked: Asked | None = None  # None before it is known, and when the engine has it
    taken: bool = False  # the engine has heard of it, or never will
    left: bool = False  # nobody waits for it any more
    aborted: bool = False  # its caller wants what there is of it
    arrival: float = field(default_factory=time.monotonic)


def is_for(piece: News, whole: bool) -> bool:
    """Whether a caller wants this piece; `whole`: it waits for the whole answer only."""
    return not whole or isinstance(piece, Exception) or piece.output is not None


def told(piece: News) -> Chunk:
    """The piece. Raises what came instead."""
    if isinstance(piece, Exception):
        raise piece
    return piece


HandOut = Callable[[Mapping[Ticket, Sequence[News]]], Sequence[Ticket]]
"""Gives callers their news; returns the tickets whose caller is not there any more."""


class Box:
    """What has been made for one call and not been taken yet; for callers that block.

    Args:
        whole: whole answers only, not their pieces.
    """

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.news: deque[News] = deque()
        self.bell = threading.Event()  # there is news, or somebody must step

    def put(self, news: Sequence[News]) -> None:
        """More news. Wakes the caller where some of it is for it."""
        if wanted := [piece for piece in news if is_for(piece, self.whole)]:
            self.news += wanted
            self.bell.set()


def put_in_boxes(found: Mapping[Ticket, Sequence[News]]) -> Sequence[Ticket]:
    """`HandOut` for tickets whose callers are boxes."""
    for ticket, news in found.items():
        ticket.caller.put(news)
    return ()


class Driver:
    """The engine's inbox, and the right to step it.

    Args:
        engine: nobody else calls its `add`, `abort`, `step` and `close`.
        max_waiting: how many requests may wait beside those that the engine computes together.
        owner: the name in messages.
    """

    def __init__(self, engine: Engine, max_waiting: int, hand_out: HandOut, owner: str) -> None:
        self.engine, self._hand_out, self._owner = engine, hand_out, owner
        self.tickets: dict[str, Ticket] = {}  # everyone who waits
        self._limit = engine.scheduler.max_seqs + max_waiting
        self._max_waiting = max_waiting
        self._ids = count()
        self._pid = os.getpid()
        # Reentrant: a stream that is collected leaves, wherever its thread is just then.
        self._changed = threading.Condition(threading.RLock())  # guards tickets, line, given_up
        self._line: OrderedDict[Ticket, None] = OrderedDict()  # asked for, not taken yet
        self._given_up: deque[Ticket] = deque()  # to be ended
        self._closing = False
        self._ended: tuple[str, BaseException | None] | None = None  # why nothing is served
        self._stepping = threading.Lock()  # whoever holds it owns the engine, and `_serving`
        self._stepper = 0  # the thread that does
        self._serving: dict[str, Ticket] = {}  # those the engine knows
        self._sleepers: dict[Box, None] = {}  # callers that wait for another's step

    # --- on any thread ------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """True while requests are served, in this process."""
        return not self._closing and self._ended is None and os.getpid() == self._pid

    def check(self) -> None:
        """Raise a new EngineDeadError where nothing is served: one that many raise would grow."""
        self._check_process()
        if self._ended is not None or self._closing:
            raise self._refusal()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise EngineDeadError(
                f"[{self._owner}] this process is a fork of the one that loaded the model, and has "
                f"no engine: make an {self._owner} in each process, after the fork"
            )

    def reserve(self, caller: Any, number: int = 1, id: str | None = None) -> list[Ticket]:
        """Places in line. They must be given a request (`submit`) or up (`leave`).

        Raises:
            EngineDeadError: nothing is served any more.
            QueueFullError: too many wait. (Several places are one call's: all of them or none.)
            ValueError: `id` is in use.
        """
        self.check()
        with self._changed:
            self.check()
            if (there := len(self.tickets)) >= self._limit:
                raise QueueFullError(
                    f"[{self._owner}] {there} requests are there already, and no more may wait: "
                    f"{self._limit - self._max_waiting} are computed together (max_num_seqs), "
                    f"{self._max_waiting} may wait (max_waiting); ask again later",
                    there,
                    self._limit,
                )
            if id is not None and id in self.tickets:
                raise ValueError(f"[{self._owner}] a request with id {id!r} is already running")
            made = [Ticket(self._new_id() if id is None else id, caller) for _ in range(number)]
            self.tickets.update((ticket.id, ticket) for ticket in made)
            return made

    def _new_id(self) -> str:
        return next(id for n in self._ids if (id := f"req-{n}") not in self.tickets)

    def submit(self, ticket: Ticket, asked: Asked) -> None:
        """What is wanted in a reserved place."""
        with self._changed:
            ticket.asked = asked
            if not ticket.left and self._ended is None:
                self._line[ticket] = None
            if ticket.aborted:
                self._given_up.append(ticket)
            self._changed.notify()

    def prepare(self, ticket: Ticket, work: Callable[[], Asked]) -> None:
        """`submit` what the work gives; where it raises, the caller gets that."""
        if ticket.left:
            return
        try:
            self.submit(ticket, work())
        except Exception as error:
            self._free(ticket)
            self._tell({ticket: [error]})

    def leave(self, ticket: Ticket) -> None:
        """Nobody waits for this any more. Harmless at any time, and in a fork."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            ticket.left = True
            self._line.pop(ticket, None)
            if self.tickets.get(ticket.id) is ticket:
                del self.tickets[ticket.id]
                if ticket.taken:
                    self._given_up.append(ticket)
                    self._changed.notify()

    def abort(self, id: str) -> None:
        """End a request; its caller gets what there is of it. An unknown id is nothing to do."""
        self.check()
        with self._changed:
            ticket = self.tickets.get(id)
            if ticket is not None and not ticket.aborted:
                ticket.aborted = True
                if ticket.taken or ticket.asked:  # else `submit` does it
                    self._given_up.append(ticket)
                    self._changed.notify()

    def stop(self) -> None:
        """Serve nothing from here on; who steps finishes the step, and then the engine."""
        if os.getpid() == self._pid:
            with self._changed:
                self._closing = True
                self._changed.notify_all()

    def _refusal(self) -> EngineDeadError:
        closed = f"[{self._owner}] this {self._owner} is closed: make a new one"
        message, cause = self._ended or (closed, None)
        error = EngineDeadError(message)
        error.__cause__ = cause
        return error

    # --- callers that step themselves ---------------------------------------------------------

    def wait(self, box: Box) -> Chunk:
        """The next piece for `box`. Whoever waits does the work, for all, or sleeps meanwhile."""
        self._check_process()
        try:
            while not box.news:
                self.check()
                with uninterrupted():
                    stepped = self._try_turn()
                if not stepped:
                    self._sleep(box)
        finally:
            self.settle()
        return told(box.news.popleft())

    def _try_turn(self) -> bool:
        """Step, if nobody else does."""
        with self._ownership(wait=False) as owned:
            if owned and not self._closing:
                self._turn()
        return owned

    @contextmanager
    def _ownership(self, *, wait: bool) -> Iterator[bool]:
        """Own the engine, if nobody else does, or when nobody else does any more."""
        owned = self._stepping.acquire(blocking=wait)
        try:
            if owned:
                self._stepper = threading.get_ident()
            yield owned
        finally:
            if owned:
                self._stepper = 0
                self._stepping.release()

    def _sleep(self, box: Box) -> None:
        """Until there is news, or whoever steps leaves: who is in `_sleepers` then is woken."""
        self._sleepers[box] = None
        try:
            if self._stepping.locked() and not box.news:
                box.bell.wait()
            box.bell.clear()
        finally:
            self._sleepers.pop(box, None)

    def settle(self) -> None:
        """Do what is left to do where nobody steps just now, and let another caller step."""
        if os.getpid() != self._pid or not (self._unsettled() or self._sleepers):
            return
        with uninterrupted():
            while self._unsettled() and self._settle_something():
                pass
            if not self._stepping.locked():  # else whoever steps will
                for box in list(self._sleepers)[:1]:
                    box.bell.set()

    def _unsettled(self) -> bool:
        return bool(self._given_up) or (self._closing and self._ended is None)

    def _settle_something(self) -> bool:
        with self._ownership(wait=False) as owned:
            if owned:
                self._end_given_up()
                if self._closing:
                    self._finish()
        return owned

    def close(self) -> None:
        """Abort what is running and give all memory back. Idempotent; in a fork, nothing."""
        if os.getpid() != self._pid:
            return
        with uninterrupted():
            self.stop()
            if self._stepper != threading.get_ident():  # else inside a step: `settle` comes later
                with self._ownership(wait=True):
                    self._finish()
            self.settle()

    # --- a thread that does nothing else ------------------------------------------------------

    def serve(self) -> None:
        """Step until `stop`, or until something is wrong with the engine."""
        cause: BaseException | None = None
        try:
            while self._something_to_do():
                with self._ownership(wait=True):
                    self._turn()
        except BaseException as error:
            cause = error
        finally:
            with self._ownership(wait=True):
                self._finish(cause)

    def _something_to_do(self) -> bool:
        """Wait for something to do; False: for nothing, from here on."""
        with self._changed:
            while not (self._closing or self._line or self._given_up or self.engine.has_work):
                self._changed.wait()
            return not self._closing

    # --- whoever owns the engine --------------------------------------------------------------

    def _turn(self) -> None:
        self._end_given_up()
        self._take()
        if self.engine.has_work:
            self._deliver(self.engine.step())

    def _take(self) -> None:
        """Let the engine have as much as it can soon use."""
        scheduler = self.engine.scheduler
        most = max(TAKEN, scheduler.max_seqs)
        while len(scheduler.waiting) < most and (ticket := self._first()) is not None:
            self._add(ticket)

    def _first(self) -> Ticket | None:
        """The next in line. None while there is something to end: its id may be in use again."""
        with self._changed:
            return None if self._given_up else next(iter(self._line), None)

    def _add(self, ticket: Ticket) -> None:
        """From here on, and not before, news about this id are for this ticket."""
        with self._changed:
            self._line.pop(ticket, None)
            asked, ticket.asked, ticket.taken = ticket.asked, None, True
            if ticket.left or asked is None:
                return
        self._serving[ticket.id] = ticket
        try:
            self.engine.add(
                asked.prompt_ids,
                asked.params,
                request_id=ticket.id,
                prompt=asked.prompt,
                arrival=ticket.arrival,
            )
        except Exception as error:
            del self._serving[ticket.id]
            self._free(ticket)
            self._tell({ticket: [error]})

    def _end_given_up(self) -> None:
        for _ in range(min(len(self._given_up), ENDED)):
            ticket = self._given_up.popleft()
            if ticket.left:
                if self._serving.get(ticket.id) is ticket:
                    del self._serving[ticket.id]
                    self.engine.abort(ticket.id)
            else:
                if not ticket.taken:
                    self._add(ticket)
                if self._serving.get(ticket.id) is ticket:
                    self._deliver(self.engine.abort(ticket.id))

    def _deliver(self, chunks: Sequence[Chunk]) -> None:
        found: dict[Ticket, list[News]] = {}
        for chunk in chunks:
            if ticket := self._serving.get(chunk.request_id):
                found.setdefault(ticket, []).append(chunk)
                if chunk.output is not None:
                    del self._serving[ticket.id]
                    self._free(ticket)
        self._tell(found)

    def _free(self, ticket: Ticket) -> None:
        """Its place and its id may be another's."""
        with self._changed:
            if self.tickets.get(ticket.id) is ticket:
                del self.tickets[ticket.id]

    def _tell(self, found: Mapping[Ticket, Sequence[News]]) -> None:
        for ticket in self._hand_out(found):
            self.leave(ticket)

    def _finish(self, cause: BaseException | None = None) -> None:
        """Nothing is served any more: tell everyone who waits, each by an error of its own."""
        if self._ended is not None:
            return
        with self._changed:
            message = str(self._refusal())
            if cause is not None:
                what = f"{type(cause).__name__}: {cause}"
                message = f"[{self._owner}] the engine died: {what}"
            self._ended = message, cause
            tickets, self.tickets = self.tickets, {}
            self._line.clear()
            self._given_up.clear()
            self._serving.clear()
        self._hand_out({ticket: [self._refusal()] for ticket in tickets.values()})
        self.engine.close()


class Closed(Driver):
    """What a rank has that has served another rank's engine, to its end: nothing to drive."""

    def __init__(self, owner: str) -> None:
        self._owner, self._pid, self._closing = owner, os.getpid(), True
        self._ended = None

    def stop(self) -> None:
        """It has stopped."""

    def close(self) -> None:
        """Nothing is left to close."""
