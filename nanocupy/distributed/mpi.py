"""A group of the processes of an MPI communicator.

Waits poll MPI, which itself would keep a whole core busy: often at first, then ever more seldom.
Each poll also checks whether another rank has failed.
"""

from __future__ import annotations

import atexit
import os
import platform
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nanocupy.distributed import cores
from nanocupy.distributed.group import Group, RankError, Work
from nanocupy.distributed.heartbeat import STALL, Heartbeat

SPIN = 0.003  # seconds of looking before a wait sleeps
MOST_SLEEP = 0.002  # seconds
LINE = 64  # bytes of a cache line
_RECORD, _BEAT = 1, 2  # message tags


def load_mpi() -> Any:
    """mpi4py's MPI, initialised.

    Raises:
        RuntimeError: it is not installed, finds no MPI library, or MPI is for one thread only.
    """
    # A component of Open MPI's wheel that is not built for this complains on every start.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(
            f"[distributed] several processes need mpi4py and an MPI library ({error}): "
            "pip install 'nanocupy[mpi]'"
        ) from error
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise RuntimeError(
            "[distributed] MPI was started for a single thread, and ranks are watched by another: "
            "leave mpi4py.rc.threads and mpi4py.rc.thread_level as they are"
        )
    return MPI


class MpiGroup(Group):
    """The processes of an MPI communicator.

    Args:
        comm: an mpi4py communicator. It is duplicated, so that messages of others never mix in.
        stall: seconds without progress after which a rank counts as stalled.

    Attributes:
        lock: held by whoever runs something on all ranks.
        closed: whether the group has been left.
        dropped: engines of rank 0 that were garbage-collected; see `engine.ranks`.
    """

    def __init__(self, comm: Any, stall: float = STALL) -> None:
        self._mpi = load_mpi()
        self._comm, self._heartbeat_comm = comm.Dup(), comm.Dup()
        self._rank, self._size = int(comm.Get_rank()), int(comm.Get_size())
        self._sends: dict[int, Any] = {}  # the last beat to each rank
        self._windows: dict[int, Any] = {}
        self.lock = threading.RLock()
        self._pid = os.getpid()
        self._heartbeat = Heartbeat(
            self._rank, self._size, self._send_beat, self._receive_beat, self._orphaned, stall
        )
        with self._in_mpi():
            host = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
            self.local_rank, self.local_size = int(host.Get_rank()), int(host.Get_size())
            host.Free()
        self.threads = self._default_threads()
        self.closed = False
        self.dropped: list[Any] = []
        atexit.register(self._leave)

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size

    @property
    def one_host(self) -> bool:
        """Whether all ranks are on this host."""
        return self.local_size == self._size

    def _default_threads(self) -> int:
        """This rank's share of the host's cores, which several may be bound to."""
        mine = cores.own_cores()
        told = self.exchange(lambda: np.array([_host_id(), *mine], np.int64).tobytes())
        masks = [np.frombuffer(part, np.int64).tolist() for part in told]
        ours = [set(mask[1:]) for mask in masks if mask[0] == _host_id()]
        return max(1, min(len(mine), len(set().union(*ours)) // self.local_size))

    # ---- messages between all ranks

    def exchange(self, work: Work) -> list[bytes]:
        error: Exception | None = None
        try:
            mine = b"\0" + work()
        except Exception as caught:
            error, mine = caught, b"\1" + f"{type(caught).__name__}: {caught}".encode()
        with self._heartbeat.waiting():
            told = self._all_gather_bytes(mine)
        if error is not None:
            raise error
        failed = [f"rank {r}: {t[1:].decode()}" for r, t in enumerate(told) if t[0]]
        if failed:
            raise RankError("; ".join(failed))
        return [text[1:] for text in told]

    def _all_gather_bytes(self, mine: bytes) -> list[bytes]:
        sizes = np.empty(self._size, np.int64)
        self._poll(self._comm.Iallgather(np.array([len(mine)], np.int64), sizes).Test)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        everything = np.empty(int(starts[-1]), np.uint8)
        places = [everything, sizes.tolist(), starts[:-1].tolist(), self._mpi.BYTE]
        self._poll(self._comm.Iallgatherv([mine, self._mpi.BYTE], places).Test)
        return [everything[a:b].tobytes() for a, b in pairwise(starts)]

    # ---- messages from rank 0 to all others

    def send_record(self, data: bytes) -> None:
        """Send a record to every other rank."""
        comm, message = self._comm, [data, self._mpi.BYTE]
        with self._heartbeat.waiting():
            for request in [comm.Isend(message, r, _RECORD) for r in range(1, self._size)]:
                self._poll(request.Test)

    def receive_record(self) -> bytes:
        """Receive the next record of rank 0."""
        status = self._mpi.Status()
        message = self._poll(lambda: self._comm.Improbe(0, _RECORD, status))
        data = bytearray(status.Get_count(self._mpi.BYTE))
        with self._heartbeat.waiting():
            self._poll(message.Irecv([data, self._mpi.BYTE]).Test)
        return bytes(data)

    def _poll(self, look: Callable[[], Any]) -> Any:
        """Call `look` until it returns something true."""
        backoff = Backoff()
        while not (found := look()):
            self.check()
            backoff.pause()
        return found

    # ---- failures

    def set_stall(self, seconds: float) -> None:
        """Set how long a rank may make no progress in a step."""
        self._heartbeat.stall = seconds

    def silent(self, rank: int) -> bool:
        """Whether nothing has been heard of a rank for that long."""
        return self._heartbeat.silent(rank)

    @property
    def failure(self) -> str | None:
        """What is wrong with the group, or None."""
        return self._heartbeat.failure

    def check(self) -> None:
        if self._heartbeat.failure is not None:
            raise RankError(self._heartbeat.failure)

    def fail(self, why: str) -> None:
        """End the waits of all ranks with a RankError: this rank cannot go on."""
        self._heartbeat.fail(why)

    @contextmanager
    def step(self, work: Any = None, patience: int = 1) -> Iterator[None]:
        self._heartbeat.begin(work, patience)
        try:
            yield
        finally:
            self._heartbeat.end()

    @contextmanager
    def _in_mpi(self) -> Iterator[None]:
        """A call of MPI that waits for all ranks and cannot be interrupted: if one fails, the job
        ends."""
        with self._heartbeat.waiting(self._end_job):
            yield

    @property
    def in_fork(self) -> bool:
        """Whether this process is a fork of the rank, and so not in the group."""
        return os.getpid() != self._pid

    def _end_job(self) -> None:
        print(f"nanocupy: the job ends: {self.failure}", file=sys.stderr, flush=True)
        self.abort()

    def abort(self) -> None:
        """End all processes of the job now."""
        # MPI would wait in vain for a launcher that is gone.
        threading.Timer(2.0, os._exit, (1,)).start()
        self._comm.Abort(1)

    def _orphaned(self) -> None:
        """Remove MPI's shared-memory files, which the launcher can no longer do, and end."""
        with suppress(OSError):
            for line in Path("/proc/self/maps").read_text().splitlines():
                if "/sm_segment." in line and not line.endswith("(deleted)"):
                    Path(line.split()[-1]).unlink(missing_ok=True)
        self.abort()

    def _send_beat(self, peer: int, data: bytes) -> None:
        if peer not in self._sends or self._sends[peer].Test():
            self._sends[peer] = self._heartbeat_comm.Isend([data, self._mpi.BYTE], peer, _BEAT)

    def _receive_beat(self) -> tuple[int, bytes] | None:
        status = self._mpi.Status()
        message = self._heartbeat_comm.Improbe(self._mpi.ANY_SOURCE, _BEAT, status)
        if message is None:
            return None
        data = bytearray(status.Get_count(self._mpi.BYTE))
        message.Recv([data, self._mpi.BYTE])
        return status.Get_source(), bytes(data)

    # ---- memory that all ranks of a host see

    def window(self, nbytes: int) -> np.ndarray:
        if not self.one_host:
            raise ValueError(
                f"[distributed] {self._size} ranks on several hosts cannot share CPU memory: on "
                "CPUs all ranks run on one host; across hosts use GPUs (--device cuda)"
            )
        size = nbytes + LINE if self._rank == 0 else 0
        with self._in_mpi():
            made = self._mpi.Win.Allocate_shared(size, 1, comm=self._comm)
        memory, _ = made.Shared_query(0)
        whole = np.frombuffer(memory, np.uint8)
        start = -whole.ctypes.data % LINE  # the same on all: mappings begin with a page
        array = whole[start : start + nbytes]
        if self._rank == 0:
            array[:] = 0
        self._windows[array.ctypes.data] = made
        self.barrier()
        return array

    def free(self, window: np.ndarray) -> None:
        self.step_barrier()
        with self._in_mpi():
            self._windows.pop(window.ctypes.data).Free()

    def step_barrier(self) -> None:
        """A barrier with the time limit of a step, before MPI itself waits for all ranks."""
        with self.step():
            self.barrier()

    def close(self) -> None:
        """Leave the group; every rank calls this. Idempotent."""
        if self.closed:
            return
        self.closed = True
        try:
            self.step_barrier()
        finally:
            self._heartbeat.close()  # it uses the communicators
        self._comm.Free()
        self._heartbeat_comm.Free()
        atexit.unregister(self._leave)

    def _leave(self) -> None:
        """Leave at the end of the program, where MPI would wait for a rank that has failed."""
        if self.in_fork:
            return
        with suppress(RankError):  # perhaps one of an earlier close
            self.check()
            self.close()
        if self.failure is not None:
            self._end_job()


class Backoff:
    """The pauses of a wait: none at first, then longer and longer."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._sleep = 0.0

    def pause(self) -> None:
        if self._sleep or time.perf_counter() - self._start > SPIN:
            self._sleep = min(max(2 * self._sleep, 5e-5), MOST_SLEEP)
            time.sleep(self._sleep)


def _host_id() -> int:
    """A number that all ranks on a host share."""
    return zlib.crc32(platform.node().encode())
