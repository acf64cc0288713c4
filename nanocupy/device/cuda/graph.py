"""Launches as a CUDA graph, and the same launches one at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from nanocupy.device.cuda.context import Context
from nanocupy.device.cuda.launch import as_kernel_error
from nanocupy.device.protocols import KernelError, Launch

Call = Callable[[], None]
"""Puts one launch on the stream."""


class EagerGraph:
    """Runs its launches one at a time."""

    def __init__(self, context: Context, launches: Sequence[Launch], calls: Sequence[Call]) -> None:
        self.launches = tuple(launches)
        self._context, self._calls = context, calls

    def run(self) -> None:
        with self._context.current():
            _run(self.launches, self._calls)
        self._context.counters["launches"] += len(self.launches)


class CudaGraph:
    """Launches that were captured once and run by one call.

    A graph holds addresses: it is this object that keeps the arrays alive.
    """

    def __init__(self, context: Context, launches: Sequence[Launch], calls: Sequence[Call]) -> None:
        self.launches = tuple(launches)
        self._context = context
        with context.current(), as_kernel_error("capture"):
            self._graph = capture(context.cupy, context.stream, lambda: _run(self.launches, calls))
            self._graph.upload(context.stream)

    def run(self) -> None:
        if self._graph is None:
            raise KernelError("[graph] the ranks that it was captured with have disconnected")
        with self._context.current(), as_kernel_error(f"graph of {len(self.launches)} launches"):
            self._graph.launch(self._context.stream)
        self._context.counters["graphs"] += 1

    def release(self) -> None:
        """Release all resources; the graph cannot be run again."""
        self._graph = None


def _run(launches: Sequence[Launch], calls: Sequence[Call]) -> None:
    for launch, call in zip(launches, calls, strict=True):
        with as_kernel_error(launch.kernel.name):
            call()


def capture(cupy: Any, stream: Any, work: Call) -> Any:
    """The CuPy graph of what `work` puts on the stream.

    The mode forbids this thread whatever would wait or allocate, so that a mistake is an error
    here and not a fault when the graph runs.
    """
    with _no_garbage_collection():
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeThreadLocal)
        try:
            work()
        except BaseException:
            with suppress(RuntimeError):  # that the capture failed is known
                stream.end_capture()
            raise
        return stream.end_capture()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Garbage may hold streams, graphs and memory, and freeing those would break a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
