"""The driver: a queue of requests, and one thread at a time that steps the engine.

It is under LLM and AsyncLLM alike. Requests come from any thread; whoever holds `_stepping` owns
the engine: it ends what was cancelled, admits what the engine can soon use, steps, and delivers
the results. With AsyncLLM the owner is a thread of its own (`run_forever`). With LLM it is one of
the callers that wait (`wait`), on behalf of all; when it leaves it wakes another.

The work between two steps is bounded, however many requests have come: see `MAX_QUEUED` and
`MAX_ENDED`.
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
    from nanocupy.engine.request import PreparedRequest

MAX_QUEUED = 64  # requests that wait inside the engine (or one per seat); others wait here
MAX_ENDED = 64  # requests that are ended between two steps

Result = Chunk | Exception


class EngineDeadError(RuntimeError):
    """The engine has ended, or belongs to another process; nothing is served."""


class QueueFullError(RuntimeError):
    """The queue is full: `waiting` requests are there, as many as `limit` allows."""

    def __init__(self, message: str, waiting: int, limit: int) -> None:
        super().__init__(message)
        self.waiting = waiting
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.waiting, self.limit), self.__dict__


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's place in the queue: who waits for it, and how far it has come."""

    id: str
    caller: Any  # where `deliver` puts its results
    prepared: PreparedRequest | None = None  # None before it is known, and once the engine has it
    admitted: bool = False  # the engine has it, or never will
    abandoned: bool = False  # nobody waits for it any more
    aborted: bool = False  # its caller wants what has been generated so far
    arrival: float = field(default_factory=time.monotonic)


def unwrap(result: Result) -> Chunk:
    """Return the chunk, or raise the exception that came instead."""
    if isinstance(result, Exception):
        raise result
    return result


Deliver = Callable[[Mapping[Ticket, Sequence[Result]]], Sequence[Ticket]]
"""Puts results into the callers' queues; returns the tickets whose caller is gone."""


class ResultQueue:
    """The results of one blocking call that have not been read yet.

    Args:
        whole: of whole answers only, not of their pieces.
    """

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.results: deque[Result] = deque()
        self.ready = threading.Event()  # there are results, or somebody must step

    def put(self, results: Sequence[Result]) -> None:
        """Add results, and wake the call."""
        self.results += results
        self.ready.set()


def deliver_to_queues(found: Mapping[Ticket, Sequence[Result]]) -> Sequence[Ticket]:
    """Deliver to tickets whose callers are ResultQueues."""
    for ticket, results in found.items():
        ticket.caller.put(results)
    return ()


class Driver:
    """The engine's inbox, and the right to step it.

    Args:
        engine: nobody else calls its `queue`, `abort`, `step` and `close`.
        max_waiting: how many requests may wait beside those that the engine computes together.
        owner: the name in messages.
    """

    def __init__(self, engine: Engine, max_waiting: int, deliver: Deliver, owner: str) -> None:
        self.engine, self._deliver_to_callers, self._owner = engine, deliver, owner
        self.tickets: dict[str, Ticket] = {}  # everyone who waits
        self._limit = engine.scheduler.max_seqs + max_waiting
        self._max_waiting = max_waiting
        self._ids = count()
        self._pid = os.getpid()
        # Reentrant: a stream that is collected is cancelled, wherever its thread is just then.
        # It guards tickets, _waiting and _cancelled.
        self._changed = threading.Condition(threading.RLock())
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()  # asked for, not taken yet
        self._cancelled: deque[Ticket] = deque()  # to be ended
        self._closing = False
        self._ended: tuple[str, BaseException | None] | None = None  # why nothing is served
        self._stepping = threading.Lock()  # whoever holds it owns the engine, and `_in_engine`
        self._stepper = 0  # the thread that does
        self._in_engine: dict[str, Ticket] = {}  # those the engine knows
        self._sleepers: dict[ResultQueue, None] = {}  # callers that wait for another's step

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
        """Reserve places. Each must get a request (`submit`) or be given up (`abandon`).

        Raises:
            EngineDeadError: nothing is served any more.
            QueueFullError: too many wait. (Several places are one call's: all of them or none.)
            ValueError: `id` is in use.
        """
        self.check()  # in a fork the lock may never be given back
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

    def submit(self, ticket: Ticket, prepared: PreparedRequest) -> None:
        """Queue the request of a reserved place."""
        with self._changed:
            ticket.prepared = prepared
            if not ticket.abandoned and self._ended is None:
                self._waiting[ticket] = None
            if ticket.aborted:
                self._cancelled.append(ticket)
            self._changed.notify()

    def prepare(self, ticket: Ticket, work: Callable[[], PreparedRequest]) -> None:
        """`submit` what `work` returns; where it raises, the caller gets the exception."""
        if ticket.abandoned:
            return
        try:
            self.submit(ticket, work())
        except Exception as error:
            self._refuse(ticket, error)

    def abandon(self, ticket: Ticket) -> None:
        """End a request that nobody waits for any more. Harmless at any time, and in a fork."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            ticket.abandoned = True
            self._waiting.pop(ticket, None)
            if self.tickets.get(ticket.id) is ticket:
                del self.tickets[ticket.id]
                if ticket.admitted:
                    self._cancelled.append(ticket)
                    self._changed.notify()

    def abort(self, id: str) -> None:
        """End a request early; its caller gets what was generated. An unknown id is ignored."""
        self.check()
        with self._changed:
            ticket = self.tickets.get(id)
            if ticket is not None and not ticket.aborted:
                ticket.aborted = True
                if ticket.admitted or ticket.prepared:  # else `submit` does it
                    self._cancelled.append(ticket)
                    self._changed.notify()

    def stop(self) -> None:
        """Refuse new calls; the owner finishes its step and then closes the engine."""
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

    def wait(self, queue: ResultQueue) -> Chunk:
        """Return the next result of `queue`: step the engine, or sleep while another thread does.

        Ctrl-C is handled between steps, never inside one.
        """
        self._check_process()
        try:
            while not queue.results:
                self.check()
                if not self._step_until(queue):
                    self._sleep(queue)
        finally:
            self.settle()
        return unwrap(queue.results.popleft())

    def _step_until(self, queue: ResultQueue) -> bool:
        """Step until `queue` has results, or Ctrl-C came; False where another owns the engine."""
        with uninterrupted() as interrupts, self._ownership(wait=False) as owned:
            while owned and not (queue.results or interrupts or self._closing):
                self._turn()
        return owned

    @contextmanager
    def _ownership(self, *, wait: bool) -> Iterator[bool]:
        """Own the engine: with `wait` as soon as it is free, else only if it is; yield whether."""
        owned = self._stepping.acquire(blocking=wait)
        try:
            if owned:
                self._stepper = threading.get_ident()
            yield owned
        finally:
            if owned:
                self._stepper = 0
                self._stepping.release()

    def _sleep(self, queue: ResultQueue) -> None:
        """Wait for results, or until the owner leaves, which wakes one of `_sleepers`."""
        self._sleepers[queue] = None
        try:
            if self._stepping.locked() and not queue.results:
                queue.ready.wait()
            queue.ready.clear()
        finally:
            self._sleepers.pop(queue, None)

    def settle(self) -> None:
        """End cancelled requests, if nobody owns the engine, and wake another caller to step."""
        if os.getpid() != self._pid or not (self._unsettled() or self._sleepers):
            return
        with uninterrupted():
            while self._unsettled() and self._settle_something():
                pass
            if not self._stepping.locked():  # else whoever steps will
                for queue in list(self._sleepers)[:1]:
                    queue.ready.set()

    def _unsettled(self) -> bool:
        return bool(self._cancelled) or (self._closing and self._ended is None)

    def _settle_something(self) -> bool:
        with self._ownership(wait=False) as owned:
            if owned:
                self._end_cancelled()
                if self._closing:
                    self._shut_down()
        return owned

    def close(self) -> None:
        """Abort what is running and release all memory. May be called again; in a fork, nothing."""
        if os.getpid() != self._pid:
            return
        with uninterrupted():
            self.stop()
            if self._stepper != threading.get_ident():  # else inside a step: `settle` comes later
                with self._ownership(wait=True):
                    self._shut_down()
            self.settle()

    # --- a thread that does nothing else ------------------------------------------------------

    def run_forever(self) -> None:
        """Step until `stop`, or until the engine raises."""
        cause: BaseException | None = None
        try:
            while self._wait_for_work():
                with self._ownership(wait=True):
                    self._turn()
        except BaseException as error:
            cause = error
        finally:
            with self._ownership(wait=True):
                self._shut_down(cause)

    def _wait_for_work(self) -> bool:
        """Wait until there is work; False once the driver is closing."""
        with self._changed:
            while not (self._closing or self._waiting or self._cancelled or self.engine.has_work):
                self._changed.wait()
            return not self._closing

    # --- whoever owns the engine --------------------------------------------------------------

    def _turn(self) -> None:
        """End, admit, step, deliver."""
        if self._cancelled:
            self._end_cancelled()
        if self._waiting:
            self._admit()
        if self.engine.groups:
            self._deliver(self.engine.step())

    def _admit(self) -> None:
        """Give the engine as many requests as it can soon use."""
        scheduler = self.engine.scheduler
        most = max(MAX_QUEUED, scheduler.max_seqs)
        while len(scheduler.waiting) < most and (ticket := self._next_waiting()) is not None:
            self._add(ticket)

    def _next_waiting(self) -> Ticket | None:
        """The first in the queue; None while a request is to be ended, which may have its id."""
        with self._changed:
            return None if self._cancelled else next(iter(self._waiting), None)

    def _add(self, ticket: Ticket) -> None:
        """Give a request to the engine. From here on results of this id are for this ticket."""
        with self._changed:
            self._waiting.pop(ticket, None)
            prepared, ticket.prepared, ticket.admitted = ticket.prepared, None, True
            if ticket.abandoned or prepared is None:
                return
        self._in_engine[ticket.id] = ticket
        try:
            self.engine.queue(prepared, request_id=ticket.id, arrival=ticket.arrival)
        except Exception as error:
            del self._in_engine[ticket.id]
            self._refuse(ticket, error)

    def _end_cancelled(self) -> None:
        for _ in range(min(len(self._cancelled), MAX_ENDED)):
            ticket = self._cancelled.popleft()
            if ticket.abandoned:
                if self._in_engine.get(ticket.id) is ticket:
                    del self._in_engine[ticket.id]
                    self.engine.abort(ticket.id)
            else:
                if not ticket.admitted:
                    self._add(ticket)
                if self._in_engine.get(ticket.id) is ticket:
                    self._deliver(self.engine.abort(ticket.id))

    def _deliver(self, chunks: Sequence[Chunk]) -> None:
        """Send chunks to their callers; a request that has ended leaves."""
        found: dict[Ticket, list[Result]] = {}
        for chunk in chunks:
            if ticket := self._in_engine.get(chunk.request_id):
                if chunk.output is not None:
                    del self._in_engine[ticket.id]
                    self._free_id(ticket)
                elif ticket.caller.whole:
                    continue
                found.setdefault(ticket, []).append(chunk)
        if found:
            self._send(found)

    def _send(self, found: Mapping[Ticket, Sequence[Result]]) -> None:
        for ticket in self._deliver_to_callers(found):
            self.abandon(ticket)

    def _free_id(self, ticket: Ticket) -> None:
        """Let another request have its place and its id."""
        with self._changed:
            if self.tickets.get(ticket.id) is ticket:
                del self.tickets[ticket.id]

    def _refuse(self, ticket: Ticket, error: Exception) -> None:
        """End a request that the engine does not have; its caller gets the error."""
        self._free_id(ticket)
        self._send({ticket: [error]})

    def _shut_down(self, cause: BaseException | None = None) -> None:
        """Close the engine, and give every caller that waits an error of its own."""
        if self._ended is not None:
            return
        with self._changed:
            message = str(self._refusal())
            if cause is not None:
                what = f"{type(cause).__name__}: {cause}"
                message = f"[{self._owner}] the engine died: {what}"
            self._ended = message, cause
            tickets, self.tickets = self.tickets, {}
            self._waiting.clear()
            self._cancelled.clear()
            self._in_engine.clear()
        self._deliver_to_callers({ticket: [self._refusal()] for ticket in tickets.values()})
        self.engine.close()


class ClosedDriver(Driver):
    """The driver of a rank that has served rank 0's engine to its end: it refuses every call."""

    def __init__(self, owner: str) -> None:
        self._owner, self._pid, self._closing = owner, os.getpid(), True
        self._ended = None

    def stop(self) -> None:
        """Do nothing: it has stopped."""

    def close(self) -> None:
        """Do nothing: nothing is left to close."""
