"""Collectives of several GPUs by NCCL: launches that all ranks of a group make in the same order.

A rank that dies leaves the others' GPUs waiting for it, for ever. So nothing here waits without
looking at the group.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

from nanocupy.device.cuda.communicator import Communicator, unique_id
from nanocupy.device.cuda.launch import as_kernel_error
from nanocupy.device.protocols import KernelError, Launch
from nanocupy.distributed.group import Group
from nanocupy.dtypes import bfloat16, float16, float32

NOT_READY = 600  # cudaErrorNotReady: the stream has work left
SPIN = 0.005  # seconds of a wait without a pause
MOST_PAUSE = 0.001  # seconds
GRACE = 0.5  # seconds
Call = Callable[[], None]


class NcclLink:
    """The connection of this rank's GPU with those of a group's other ranks.

    Args:
        toolkit: see `toolkit.Toolkit`.
        stream: where collectives run.
        group: of the processes; see `distributed.Group`.
        id: of the communicator.

    Attributes:
        rank, ranks: which rank this is, of how many.
        graphs: those that hold collectives.
    """

    def __init__(self, toolkit: Any, stream: Any, group: Group, id: bytes) -> None:
        nccl = toolkit.nccl()
        self.rank, self.ranks = int(group.rank()), int(group.size())
        self.graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        self._cupy, self._stream, self._group = toolkit.cupy, stream, group
        self._dtypes = {
            float32: nccl.NCCL_FLOAT32,
            float16: nccl.NCCL_FLOAT16,
            bfloat16: nccl.NCCL_BFLOAT16,
        }
        self._operations = {"sum": nccl.NCCL_SUM, "max": nccl.NCCL_MAX}
        self._warm: set[Any] = set()  # the collectives that ran
        self._comm = Communicator(nccl, self.ranks, id, self.rank)

    # ---- launches

    def call(self, launch: Launch) -> Call:
        """What puts a launch on the stream. See `kernels.kernel` for the arguments."""
        if launch.kernel.name == "all_reduce":
            return self._all_reduce(*launch.args)
        return self._gather_columns(*launch.args)

    def _all_reduce(self, x: Any, out: Any, count: int, operation: str) -> Call:
        how = (self._dtypes[x.dtype], self._operations[operation])
        ends = (x.data.ptr, out.data.ptr)
        return partial(self._comm.all_reduce, *ends, count, *how, self._stream.ptr)

    def _gather_columns(
        self, x: Any, out: Any, scratch: Any, rows: int, widths: tuple[int, ...]
    ) -> Call:
        if len(widths) != self.ranks or x.size < rows * widths[self.rank]:
            raise ValueError(
                f"[gather_columns] x has {x.size} elements, for {rows} rows of widths {widths}: "
                f"this is rank {self.rank} of {self.ranks}"
            )
        gather = self._gather(x, scratch, rows, widths)
        runtime, stream, size = self._cupy.cuda.runtime, self._stream.ptr, x.dtype.itemsize
        starts, pitch = _starts(widths), sum(widths) * size
        copies = [
            (out.data.ptr + start * size, pitch, scratch.data.ptr + rows * start * size,
             width * size, width * size, rows, runtime.memcpyDeviceToDevice, stream)
            for start, width in zip(starts, widths, strict=True)
        ]  # fmt: skip

        def run() -> None:
            gather()
            for copy in copies:
                runtime.memcpy2DAsync(*copy)

        return run

    def _gather(self, x: Any, scratch: Any, rows: int, widths: tuple[int, ...]) -> Call:
        """Every rank's x, one after the other, into scratch."""
        calls = []
        for root, (start, width) in enumerate(zip(_starts(widths), widths, strict=True)):
            to = scratch.data.ptr + rows * start * x.dtype.itemsize
            source = x.data.ptr if root == self.rank else to
            how = (rows * width, self._dtypes[x.dtype], root, self._stream.ptr)
            calls.append((source, to, *how))
        return partial(self._comm.broadcast_all, calls)

    def warm_up(self, launch: Launch, new: Callable[..., Any]) -> None:
        """Run a launch if none of its sort has run: NCCL makes connections at first use.

        Args:
            new: allocates an array for the result, which nobody reads.
        """
        x, out, *sort = launch.args
        kind = (launch.kernel.name, x.dtype, *sort[-2:])
        if kind in self._warm:
            return
        self._warm.add(kind)
        if launch.kernel.name == "all_reduce":
            result = new((sort[0],), out.dtype)
            self._all_reduce(x, result, *sort)()
        else:
            self._gather(x, *sort)()

    # ---- waiting

    def wait(self) -> None:
        """Wait until the stream has no work left, or work that failed.

        Raises:
            RankError: another rank has failed.
            KernelError: NCCL has failed, or was aborted.
        """
        # Not CuPy's `stream.done`, which is never true for a stream whose work failed.
        query, stream = self._cupy.cuda.runtime.streamQuery, self._stream.ptr
        start = time.perf_counter()
        while query(stream) == NOT_READY:
            waited = time.perf_counter() - start
            if waited < SPIN:
                time.sleep(0)  # lets other threads run
            else:
                self._check()
                time.sleep(min(waited / 50, MOST_PAUSE))
        if self._comm.closed:
            self._check()

    def _check(self) -> None:
        """Raise what is wrong with the other ranks, after aborting."""
        try:
            self._group.check()
            if (error := self._comm.error()) is not None:
                self._wait_for_a_reason()
                raise KernelError(f"[nccl] {error}") from error
        except BaseException:
            self.abort()
            raise

    def _wait_for_a_reason(self) -> None:
        """Give the group a moment to say which rank failed, and why: NCCL cannot."""
        end = time.perf_counter() + GRACE
        while time.perf_counter() < end:
            self._group.check()
            time.sleep(0.01)

    # ---- the end

    def abort(self) -> None:
        """End all waiting for other ranks. Idempotent; from any thread."""
        self._comm.abort()

    def close(self) -> None:
        """Disconnect; all ranks do so together. Idempotent.

        Graphs that hold collectives cannot be run again.
        """
        if self._comm.closed:
            return
        try:
            self.wait()
            self._group.exchange(bytes)
        except BaseException:
            self.abort()
            raise
        for graph in list(self.graphs):
            graph.release()
        self._comm.destroy()


def connect(toolkit: Any, gpu: Any, stream: Any, group: Group, scratch: Any) -> NcclLink:
    """Connect the GPUs of a group. All ranks do so together, and all raise or none.

    Args:
        gpu: a context in which the GPU is the thread's current one.
        scratch: f32 [1] on it.

    Raises:
        RuntimeError: NCCL is not installed.
        KernelError: what NCCL says.
        RankError: another rank raised.
    """
    made: list[NcclLink] = []

    def load() -> bytes:
        toolkit.nccl()
        return b""

    def name() -> bytes:
        with gpu, as_kernel_error("nccl"):
            return unique_id(toolkit.nccl())

    def make(id: bytes) -> bytes:
        with gpu, as_kernel_error("nccl"):
            made.append(NcclLink(toolkit, stream, group, id))
            made[0]._all_reduce(scratch, scratch, 1, "sum")()  # NCCL makes connections at first use
        return b""

    def meet() -> bytes:
        made[0].wait()
        return b""

    try:
        group.exchange(load)  # before anybody waits inside of NCCL for all others
        group.exchange(partial(make, group.broadcast(name)))
        group.exchange(meet)
    except BaseException:
        for link in made:
            link.abort()
        raise
    return made[0]


def _starts(widths: tuple[int, ...]) -> list[int]:
    """Where each part begins."""
    return [0, *accumulate(widths[:-1])]
