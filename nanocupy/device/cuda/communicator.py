"""NCCL's communicator, with an abort and a destroy that never hang the caller.

NCCL comes back from `abort` and `destroy` only when every graph that was captured with the
communicator is gone. So both run on a thread of their own.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

PATIENCE = 10.0  # seconds that a communicator may take to be destroyed


class Communicator:
    """This rank's end of the communicator named `id`. All ranks make theirs together.

    Args:
        nccl: the module `cupy.cuda.nccl`.
        id: what `unique_id` gave on rank 0.

    Attributes:
        closed: whether it was aborted or destroyed.
    """

    def __init__(self, nccl: Any, ranks: int, id: bytes, rank: int) -> None:
        self.closed = False
        self._nccl, self._lock = nccl, threading.Lock()
        with _known_statuses():
            self._communicator = nccl.NcclCommunicator(ranks, id, rank)
        # CuPy destroys what nobody refers to any more, at exit at the latest: not this one.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._communicator))

    def all_reduce(self, *args: int) -> None:
        """As CuPy's `allReduce`."""
        self._check()
        with _known_statuses():
            self._communicator.allReduce(*args)

    def broadcast_all(self, calls: Sequence[tuple[int, ...]]) -> None:
        """Several of CuPy's `broadcast`, as one operation."""
        self._check()
        with _known_statuses():
            self._nccl.groupStart()
            try:
                for args in calls:
                    self._communicator.broadcast(*args)
            finally:
                self._nccl.groupEnd()

    def _check(self) -> None:
        if self.closed:
            raise RuntimeError("the ranks have disconnected")

    def error(self) -> RuntimeError | None:
        """The error that NCCL has found since the last call, if any."""
        with self._lock:  # not while it ends
            if self.closed:
                return RuntimeError("the collectives were aborted")
            try:
                with _known_statuses():
                    self._communicator.check_async_error()
            except RuntimeError as error:
                return error
        return None

    def abort(self) -> None:
        """End all waiting for other ranks. Idempotent; from any thread."""
        if self._end():
            self._in_background(self._communicator.abort)

    def destroy(self) -> None:
        """Release what NCCL holds, after all ranks are done. Idempotent."""
        if self._end():
            self._in_background(self._communicator.destroy).join(PATIENCE)

    def _end(self) -> bool:
        """Mark it as closed; whether it was open."""
        with self._lock:
            closed, self.closed = self.closed, True
        return not closed

    def _in_background(self, end: Callable[[], None]) -> threading.Thread:
        kept = ctypes.py_object(self._communicator)

        def run() -> None:
            end()
            ctypes.pythonapi.Py_DecRef(kept)

        thread = threading.Thread(target=run, name="nanocupy-nccl-end", daemon=True)
        thread.start()
        return thread


def unique_id(nccl: Any) -> bytes:
    """A name for a new communicator."""
    with _known_statuses():
        return bytes(nccl.get_unique_id())


@contextmanager
def _known_statuses() -> Iterator[None]:
    """CuPy has no names for NCCL's newer statuses, and says KeyError."""
    try:
        yield
    except KeyError as error:
        raise RuntimeError(f"NCCL failed with status {error}") from error
