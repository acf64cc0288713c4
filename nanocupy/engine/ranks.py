"""One engine on several ranks: rank 0 schedules and sends records, the others follow them.

A record is a letter and its body. Rank 0's `step` sends the used part of its step buffers; every
other rank copies it into its own and runs the same graph. The collectives in the graph keep the
ranks together.
"""

from __future__ import annotations

import atexit
import functools
import json
import struct
import time
import weakref
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from nanocupy.distributed import RankError
from nanocupy.distributed.mpi import MpiGroup
from nanocupy.engine.batch import Sampled, Scheduled
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.step_transfer import pack, unpack
from nanocupy.version import __version__

if TYPE_CHECKING:
    from nanocupy.engine.runner import ModelRunner

MAKE, STEP, CLOSE, END = b"M", b"S", b"C", b"E"
_STEP = struct.Struct("<qqqqqII")
"""Engine, step, sequences, block table columns, edits; CRCs of the last tokens and of the rest."""
_ids = count()


class LeadingRunner:
    """Rank 0's runner: all ranks run what it runs. See `engine.batch.Runner`.

    An error after a step was sent is a RankError; the group cannot be used any more.
    """

    def __init__(self, runner: ModelRunner, group: MpiGroup, id: int, once: bool) -> None:
        self.runner, self.group, self.id, self._once = runner, group, id, once
        self._steps, self._tokens = 0, 0
        self._closed = False
        # Garbage-collected without `close`: the other ranks are told later.
        self._drop = weakref.finalize(self, group.dropped.append, (id, runner.disconnect))
        self._drop.atexit = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def step(self, batch: Sequence[Scheduled]) -> list[Sampled]:
        """Compute the chunks on all ranks; one Sampled per SampleRow, in order."""
        with self.group.lock:
            self.group.check()
            wanted, edits = self.runner.fill(batch)
            record = self._record(len(batch), edits)
            try:
                with self.group.step(self.runner.device):
                    self.group.send_record(record)
                    self.runner.run(len(batch), edits)
            except BaseException as error:
                self.group.fail(f"{type(error).__name__}: {error}")
                if not isinstance(error, Exception):
                    raise
                raise RankError(self.group.failure) from error
            self._tokens = _tokens(self.runner)
            return list(self.runner.answers(wanted))

    def _record(self, sequences: int, edits: int) -> bytes:
        host = self.runner.buffers.host
        furthest = int(host.positions[: int(host.counts[0])].max(initial=0))
        columns = furthest // self.runner.block_size + 1
        payload = pack(host, sequences, columns, edits)
        self._steps += 1
        numbers = (self.id, self._steps, sequences, columns, edits)
        return STEP + _STEP.pack(*numbers, self._tokens, zlib.crc32(payload)) + payload

    def close(self) -> None:
        """Release the memory on all ranks. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._drop.detach()
        with self.group.lock:
            if self.group.failure is not None:
                self.runner.close()
                return
            self.group.send_record(CLOSE + struct.pack("<q", self.id))
            close(self.runner)
            if self._once:
                self.group.close()


def close(runner: ModelRunner) -> None:
    """Release the runner's memory, then what it shares with other ranks."""
    runner.close()
    runner.disconnect()


def _tokens(runner: ModelRunner) -> int:
    """A checksum of the last step's tokens: the same on all ranks, if they still agree."""
    samples = int(runner.buffers.host.counts[1])
    return zlib.crc32(runner.buffers.answers.token[:samples].tobytes())


# ---- rank 0: making an engine on all ranks


def lead(
    model: str, options: EngineOptions, group: MpiGroup, load: Callable[..., Any], *, once: bool
) -> Any:
    """Load a model on all ranks; return what `load` returns, with a LeadingRunner.

    Args:
        once: the other ranks are free again when it is closed.
    """
    _end_with_the_program(group)
    id = next(_ids)
    asked = {"id": id, "version": __version__, "model": model, "options": asdict(options)}
    group.set_stall(options.stall_timeout)
    with group.lock:
        group.check()
        _close_dropped(group)
        group.send_record(MAKE + json.dumps(asked).encode())
        try:
            loaded = load(model, options, group)
        except Exception:
            if once:
                _end(group)
                group.close()
            raise
        except BaseException as error:  # Ctrl-C: the others are in the middle of something
            group.fail(type(error).__name__)
            raise
    return loaded._replace(runner=LeadingRunner(loaded.runner, group, id, once))


@functools.cache
def _end_with_the_program(group: MpiGroup) -> None:
    """Tell the other ranks when rank 0's program ends. Once a group."""
    atexit.register(_end, group)


def _end(group: MpiGroup) -> None:
    with group.lock, suppress(RankError):
        if not (group.closed or group.in_fork):
            group.check()
            group.send_record(END)


def _close_dropped(group: MpiGroup) -> None:
    """Close, on all ranks, engines that were garbage-collected on rank 0."""
    while group.dropped:
        id, disconnect = group.dropped.pop()
        group.send_record(CLOSE + struct.pack("<q", id))
        disconnect()


# ---- all other ranks


@dataclass
class Followed:
    """A follower's side of one engine: its steps so far, and the checksum of the last tokens."""

    runner: ModelRunner
    steps: int = 0
    tokens: int = 0


class Follower:
    """A rank that follows rank 0's records.

    Args:
        own: (model, options) that this rank itself asks for; its first engine must be the same.
        load: `load(model, options, group)`, as on rank 0.
    """

    def __init__(
        self, group: MpiGroup, own: tuple[str, EngineOptions], load: Callable[..., Any]
    ) -> None:
        self.group, self._load = group, load
        self._own: tuple[str, EngineOptions] | None = own
        self._engines: dict[int, Followed] = {}
        self._refused: Exception | None = None  # why the last engine was not made

    def follow(self, *, once: bool) -> None:
        """Serve until rank 0's program ends, or, with `once`, until no engine is left.

        Raises:
            Exception: with `once`, why the engine could not be made, or why it ended.
            RankError: something went wrong, and rank 0 is not there any more.
        """
        does = {MAKE: self._make, STEP: self._step, CLOSE: self._close}
        try:
            while (record := self.group.receive_record())[:1] != END:
                does[record[:1]](memoryview(record)[1:])
                if once and record[:1] == CLOSE and not self._engines:
                    break
            if once:
                self.group.close()
        except Exception as error:
            self.group.fail(f"{type(error).__name__}: {error}")
            if once:
                raise RankError(self.group.failure) from error
        else:
            if once and self._refused is not None:
                raise self._refused
            return
        while not self.group.silent(0):  # its callers know, and it is for them to end the job
            time.sleep(0.1)
        raise RankError(f"{self.group.failure}; and rank 0 is silent")

    def _make(self, body: memoryview) -> None:
        asked = json.loads(bytes(body))
        options = EngineOptions(**asked["options"])
        self.group.set_stall(options.stall_timeout)
        check = _same(asked["version"], self._own, (asked["model"], options))
        self._own = None
        try:
            loaded = self._load(asked["model"], replace(options, progress=False), self.group, check)
        except Exception as error:  # every rank has heard of it, and rank 0's caller decides
            self._refused = error
            return
        self._refused, self._engines[asked["id"]] = None, Followed(loaded.runner)

    def _step(self, body: memoryview) -> None:
        id, step, sequences, columns, edits, tokens, check = _STEP.unpack_from(body)
        engine, payload = self._engines[id], body[_STEP.size :]
        engine.steps += 1
        said, here = (step, tokens, check), (engine.steps, engine.tokens, zlib.crc32(payload))
        if said != here:
            raise RuntimeError(f"rank 0 and this rank do not agree: {said} there, {here} here")
        runner = engine.runner
        with self.group.step(runner.device):
            unpack(payload, runner.buffers.host, sequences, columns, edits)
            runner.run(sequences, edits)
        engine.tokens = _tokens(runner)

    def _close(self, body: memoryview) -> None:
        (id,) = struct.unpack("<q", body)
        close(self._engines.pop(id).runner)


def _same(
    version: str, own: tuple[str, EngineOptions] | None, asked: tuple[str, EngineOptions]
) -> Callable[[], None]:
    """Return a check that this rank asks for the same version, model and options as rank 0."""

    def check() -> None:
        if version != __version__:
            raise ValueError(f"this rank runs nanocupy {__version__}, rank 0 {version}")
        (model, options), (model_0, options_0) = own or asked, asked
        here = {"model": model, **asdict(options), "progress": None}
        there = {"model": model_0, **asdict(options_0), "progress": None}
        if wrong := {name: value for name, value in here.items() if value != there[name]}:
            asks = {name: there[name] for name in wrong}
            raise ValueError(f"this rank asks for {wrong}, rank 0 for {asks}")

    return check
