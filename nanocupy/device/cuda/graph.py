"""Launches as a CUDA graph, and the same launches one at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from nanocupy.device.cuda.launch import is_collective, naming
from nanocupy.device.protocols import KernelError, Launch

if TYPE_CHECKING:
    from nanocupy.device.cuda.device import CudaDevice


class EagerGraph:
    """Runs its launches one at a time."""

    def __init__(self, device: CudaDevice, launches: Sequence[Launch]) -> None:
        self.launches = tuple(launches)
        self._device = device
        self._calls = device.prepare(self.launches)

    def run(self) -> None:
        with self._device.current():
            _run(self.launches, self._calls)
        self._device.counters["launches"] += len(self.launches)


class CudaGraph:
    """Launches that were captured once and run by one call.

    A graph holds addresses: it is this object that keeps the arrays alive.
    """

    def __init__(self, device: CudaDevice, launches: Sequence[Launch]) -> None:
        self.launches = tuple(launches)
        self._device = device
        calls = device.prepare(self.launches)
        device.warm_up(self.launches)
        with device.current(), naming("capture"):
            self._graph = capture(device.cupy, device.stream, lambda: _run(self.launches, calls))
            self._graph.upload(device.stream)
        if device.link is not None and any(map(is_collective, self.launches)):
            device.link.graphs.add(self)

    def run(self) -> None:
        if self._graph is None:
            raise KernelError("[graph] the ranks that it was captured with have parted")
        with self._device.current(), naming(f"graph of {len(self.launches)} launches"):
            self._graph.launch(self._device.stream)
        self._device.counters["graphs"] += 1

    def drop(self) -> None:
        """Be of no more use, and hold nothing."""
        self._graph = None


def _run(launches: Sequence[Launch], calls: Sequence[Callable[[], None]]) -> None:
    for launch, call in zip(launches, calls, strict=True):
        with naming(launch.kernel.name):
            call()


def capture(cupy: Any, stream: Any, work: Callable[[], None]) -> Any:
    """The CuPy graph of what `work` puts on the stream.

    The mode forbids this thread whatever would wait or allocate, so that a mistake is an error
    here and not a fault at replay.
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
