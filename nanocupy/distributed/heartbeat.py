"""Each rank tells the others a few times a second that it is alive, and how far it is.

So nobody waits for ever. A rank that fails says so. A rank that stalls is noticed by the others,
which stop waiting and name it. For a rank that is killed, the launcher ends the job.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

POLL = 0.05  # seconds between looks for beats of others
BEAT = 0.25  # seconds between beats of ours
STALL = 6.0  # seconds without progress in a step after which a rank counts as stalled
_BEAT = struct.Struct("<qq")  # steps begun, progress inside the last


@dataclass
class Peer:
    """What is known of another rank.

    Attributes:
        at: (steps begun, progress inside the last).
        heard, moved: when it last said something, and when that last changed.
    """

    at: tuple[int, int]
    heard: float
    moved: float


class Heartbeat:
    """A thread that sends beats to all other ranks and receives theirs.

    Args:
        rank, ranks: number of this rank, and how many there are.
        send: `send(peer, data)` sends without waiting.
        receive: the next `(peer, data)`, or None.
        orphaned: called if the launcher is gone.
        stall: seconds without progress after which a rank counts as stalled.

    Attributes:
        failure: what is wrong with the group; None while nothing is.
    """

    def __init__(
        self,
        rank: int,
        ranks: int,
        send: Callable[[int, bytes], None],
        receive: Callable[[], tuple[int, bytes] | None],
        orphaned: Callable[[], None],
        stall: float = STALL,
    ) -> None:
        self.failure: str | None = None
        self.stall = stall
        self._rank, self._send, self._receive, self._orphaned = rank, send, receive, orphaned
        now = time.monotonic()
        self._peers = {r: Peer((0, 0), now, now) for r in range(ranks) if r != rank}
        self._steps, self._since = 0, 0.0  # since: when the running step began; 0: none runs
        self._patience = 1
        self._waits = False  # for other ranks, in a step or outside
        self._give_up: Callable[[], None] | None = None  # ends a wait that `interrupt` cannot end
        self._work: Any = None
        self._before = 0  # the work's progress when the step began
        self._seen = now
        self._send_lock = threading.Lock()
        self._moved = (0, 0, now)  # progress of our own, and when that changed
        self._ended = threading.Event()
        self._parent = os.getppid()
        self._thread = threading.Thread(target=self._run, name="nanocupy-heartbeat", daemon=True)
        self._thread.start()

    # ---- called by the rank

    def begin(self, work: Any = None, patience: int = 1) -> None:
        """Begin a step that every rank takes part in.

        Args:
            work: what runs the step: has `progress()`, a number that grows, and `interrupt()`.
            patience: how many times `stall` this step may make no progress.
        """
        self._steps, self._patience = self._steps + 1, patience
        self._before = 0 if work is None else int(work.progress())
        self._work, self._since = work, time.monotonic()

    def end(self) -> None:
        """End the step."""
        self._since, self._work = 0.0, None

    @contextmanager
    def waiting(self, give_up: Callable[[], None] | None = None) -> Iterator[None]:
        """While this rank waits for others, in a step or outside.

        Args:
            give_up: called if a rank has failed, for a wait that cannot be interrupted.
        """
        before = self._waits, self._give_up
        self._waits, self._give_up = True, give_up
        try:
            yield
        finally:
            self._waits, self._give_up = before

    def fail(self, why: str) -> None:
        """Tell all others at once that this rank cannot go on."""
        if self.failure is None:
            self.failure = f"rank {self._rank}: {why}"
            self._beat()

    def silent(self, rank: int) -> bool:
        """Whether nothing has been heard of a rank for as long as a step may stall."""
        return time.monotonic() - self._peers[rank].heard > self.stall

    def close(self) -> None:
        """Stop the thread."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ---- the thread

    def _run(self) -> None:
        next_beat = 0.0
        while not self._ended.wait(POLL):
            if os.getppid() != self._parent:
                self._orphaned()
            now = time.monotonic()
            if now - self._seen > 2 * BEAT:
                self._restart_clocks(now)
            self._seen = now
            if now >= next_beat:
                self._beat()
                next_beat = now + BEAT
            try:
                self._listen()
            except Exception as error:  # a rank without a heartbeat must not go on
                self.fail(f"{type(error).__name__} in its heartbeat: {error}")
            if self.failure is not None and (work := self._work) is not None:
                work.interrupt()
            if self.failure is not None and (give_up := self._give_up) is not None:
                self._give_up = None
                give_up()

    def _listen(self) -> None:
        while (heard := self._receive()) is not None:
            self._hear(*heard)
        if self.failure is None:
            self._check_peers(time.monotonic())

    def _restart_clocks(self, now: float) -> None:
        """Count anew: this process was stopped (Ctrl-Z, a paused machine), and so were others."""
        for peer in self._peers.values():
            peer.heard = peer.moved = now

    def _beat(self) -> None:
        text = (self.failure or "").encode()
        with self._send_lock:
            for peer in self._peers:
                self._send(peer, _BEAT.pack(*self._here()) + text)

    def _here(self) -> tuple[int, int]:
        work = self._work
        return self._steps, 0 if work is None else int(work.progress()) - self._before

    def _hear(self, rank: int, data: bytes) -> None:
        peer, now = self._peers[rank], time.monotonic()
        at = _BEAT.unpack_from(data)
        if at != peer.at:
            peer.at, peer.moved = at, now
        peer.heard = now
        if self.failure is None and len(data) > _BEAT.size:
            self.failure = data[_BEAT.size :].decode(errors="replace")

    def _max_silence(self) -> float:
        """Seconds after which a silent rank has failed. Outside steps a rank may be busy, and beat
        late; with the time to notice, it is still found within twice the stall time."""
        if self._since and self._patience == 1:
            return self.stall
        return max(self.stall, 2 * self.stall - 2 * BEAT)

    def _check_peers(self, now: float) -> None:
        """Set `failure` if a rank that we wait for is silent or stalled."""
        since, limit = self._since, self._max_silence()
        silent = [r for r, p in self._peers.items() if now - max(p.heard, since) > limit]
        if silent and (since or self._waits):
            self.failure = f"{_ranks(silent)} has said nothing for {limit:g} s"
            return
        limit = self.stall * self._patience
        here = self._here()
        if here != self._moved[:2]:
            self._moved = (*here, now)
        last = max(self._moved[2], since, *(peer.moved for peer in self._peers.values()))
        if since and now - last > limit:
            places = {self._rank: here} | {r: peer.at for r, peer in self._peers.items()}
            behind = [r for r, place in places.items() if place == min(places.values())]
            self.failure = (
                f"{_ranks(behind)} made no progress for {limit:g} s (raise stall_timeout, now "
                f"{self.stall:g}, if one kernel can take so long)"
            )


def _ranks(ranks: list[int]) -> str:
    return "rank " + ", ".join(map(str, sorted(ranks)))
