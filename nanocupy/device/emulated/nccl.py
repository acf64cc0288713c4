"""NCCL's functions by CuPy's names. The GPUs belong to processes (or threads) of this machine.

Every collective is one exchange: a rank gives the others what it has, with a header that says what
is asked for, and goes on when it has theirs. Sums are made in the order of ranks, each step rounded
to the dtype; NCCL rounds hop by hop, in an order of its own.
"""

from __future__ import annotations

import secrets
import struct
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.device.emulated.gpu import Gpu, at
from nanocupy.device.emulated.mesh import Mesh
from nanocupy.dtypes import FLOATS

SYSTEM_ERROR, INVALID_ARGUMENT, INVALID_USAGE, REMOTE_ERROR = 2, 4, 5, 6
ERRORS = {
    SYSTEM_ERROR: "NCCL_ERROR_SYSTEM_ERROR: unhandled system error",
    INVALID_ARGUMENT: "NCCL_ERROR_INVALID_ARGUMENT: invalid argument",
    INVALID_USAGE: "NCCL_ERROR_INVALID_USAGE: invalid usage",
    REMOTE_ERROR: "NCCL_ERROR_REMOTE_ERROR: remote process exited or there was a network error",
}
ID_BYTES = 128
Finish = Callable[[Sequence[np.ndarray]], np.ndarray]


class NcclError(RuntimeError):
    """Args: status: of NCCL's. more: what only the stand-in says."""

    def __init__(self, status: int, more: str = "") -> None:
        super().__init__(ERRORS[status] + (more and f" ({more})"))
        self.status, self._more = status, more

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self._more), self.__dict__


class Nccl:
    """The module `cupy.cuda.nccl`, on one GPU."""

    available = True
    NCCL_FLOAT16, NCCL_FLOAT32, NCCL_BFLOAT16 = 6, 7, 9
    NCCL_SUM, NCCL_MAX = 0, 2
    NcclError = NcclError

    def __init__(self, gpu: Gpu) -> None:
        self._groups: list[list[Callable[[], None]]] = []  # calls that wait for their group's end
        owner = {"_gpu": gpu, "_groups": self._groups}
        self.NcclCommunicator: Any = type("NcclCommunicator", (NcclCommunicator,), owner)

    def get_unique_id(self) -> bytes:
        return secrets.token_bytes(ID_BYTES)

    def groupStart(self) -> None:
        self._groups.append([])

    def groupEnd(self) -> None:
        if not self._groups:
            raise NcclError(INVALID_USAGE)
        calls = self._groups.pop()
        if self._groups:
            self._groups[-1].extend(calls)
        else:
            for call in calls:
                call()


DTYPES: dict[int, np.dtype[Any]] = {getattr(Nccl, f"NCCL_{d.name.upper()}"): d for d in FLOATS}
OPERATIONS: dict[int, Any] = {Nccl.NCCL_SUM: np.add, Nccl.NCCL_MAX: np.fmax}


class NcclCommunicator:
    """One rank's end. Made by all ranks at once."""

    _gpu: Gpu
    _groups: list[list[Callable[[], None]]]

    def __init__(self, ndev: int, commId: bytes, rank: int) -> None:
        self._gpu.unsafe()
        if len(commId) != ID_BYTES:
            raise ValueError(f"commId length {len(commId)} != {ID_BYTES}.")
        if not 0 <= rank < ndev:
            raise NcclError(INVALID_ARGUMENT)
        try:
            self._mesh = Mesh(ndev, commId, rank)
        except (OSError, ValueError) as error:
            raise NcclError(SYSTEM_ERROR, str(error)) from error
        self._ndev, self._rank = ndev, rank
        self._over = False
        self._error: tuple[int, str] | None = None  # status, and more
        self._captured: weakref.WeakSet[_Collective] = weakref.WeakSet()
        self._gpu.links.append(self)

    def size(self) -> int:
        self._check()
        return self._ndev

    def rank_id(self) -> int:
        self._check()
        return self._rank

    def _check(self, *allowed: bool) -> None:
        if self._over or not all(allowed):
            raise NcclError(INVALID_ARGUMENT)

    def check_async_error(self) -> None:
        self._check()
        if self._error is not None:
            raise NcclError(*self._error)

    # ---- collectives

    def allReduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        self._check(datatype in DTYPES, op in OPERATIONS)

        def fold(parts: Sequence[np.ndarray]) -> np.ndarray:
            first, *others = parts
            with np.errstate(all="ignore"):
                for part in others:
                    first = OPERATIONS[op](first, part)
            return first

        header = _HEADER.pack(b"sum/max", datatype, op, count)
        self._submit(stream, _Collective(self, header, sendbuf, recvbuf, fold))

    def broadcast(
        self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int
    ) -> None:
        self._check(datatype in DTYPES, 0 <= root < self._ndev)
        source = sendbuff if root == self._rank else None
        header = _HEADER.pack(b"spread", datatype, root, count)
        self._submit(stream, _Collective(self, header, source, recvbuff, lambda parts: parts[root]))

    def _submit(self, stream: int, work: _Collective) -> None:
        gpu = self._gpu

        def call() -> None:
            if gpu.capture and gpu.capture.stream == stream:
                self._captured.add(work)
            gpu.submit(stream, work)

        if self._groups:
            self._groups[-1].append(call)
        else:
            call()

    def _exchange(self, header: bytes, make: Callable[[], bytes]) -> list[bytes] | None:
        """What each rank gives; None: not all have. What went wrong goes on as that, for ever."""
        if self._error is not None:
            return None
        try:
            told = self._mesh.exchange(lambda: header + make())
        except OSError:
            self._error = REMOTE_ERROR, ""
            return None
        for rank, text in enumerate(told or []):
            if text[: len(header)] != header:
                asked = f"rank {self._rank}: {_words(header)}; rank {rank}: {_words(text)}"
                self._error = INVALID_USAGE, asked
                return None
        return told and [text[len(header) :] for text in told]

    # ---- the end

    def abort(self) -> None:
        self._close()

    def destroy(self) -> None:
        self._close()

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self._mesh.close()
            self._gpu.links.remove(self)
            while self._captured:  # so does NCCL wait for graphs
                time.sleep(0.005)


_HEADER = struct.Struct("<8sqqq")  # collective, dtype, operation or root, count


class _Collective:
    """Work for a stream.

    Args:
        source: address of what this rank gives; None: it gives nothing.
        to: address of the result.
        finish: makes the result of what the ranks gave.
    """

    def __init__(
        self, link: NcclCommunicator, header: bytes, source: int | None, to: int, finish: Finish
    ) -> None:
        self._link, self._header = link, header
        self._source, self._to, self._finish = source, to, finish
        _, datatype, _, count = _HEADER.unpack(header)
        self._dtype, self._nbytes = DTYPES[datatype], count * DTYPES[datatype].itemsize

    def __call__(self) -> bool:
        """Whether it is done; it also is, with anything as its result, if the link was aborted."""
        link, to = self._link, self._to
        if link._over:
            return True
        link._gpu.check(to, self._nbytes)
        parts = link._exchange(self._header, self._give)
        if parts is None:
            return link._over
        result = self._finish([np.frombuffer(part, self._dtype) for part in parts])
        at(to, self._nbytes)[:] = result.view(np.uint8)
        return True

    def _give(self) -> bytes:
        if self._source is None:
            return b""
        self._link._gpu.check(self._source, self._nbytes)
        return at(self._source, self._nbytes).tobytes()


def _words(header: bytes) -> str:
    name, datatype, how, count = _HEADER.unpack_from(header)
    return f"{name.rstrip(bytes(1)).decode()} of {count} x {DTYPES[datatype]}, {how}"
