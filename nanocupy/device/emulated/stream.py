"""Streams, events and graphs."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from nanocupy.device.emulated import errors
from nanocupy.device.emulated.gpu import RELAXED, Capture, Gpu, Work


class Stream:
    """Runs work in order; or records it into a graph."""

    _gpu: Gpu

    def __init__(self, *, non_blocking: bool = False) -> None:
        self.ptr = next(self._gpu.handles)
        self._gpu.streams.add(self.ptr)
        weakref.finalize(self, self._gpu.streams.discard, self.ptr).atexit = False
        self._non_blocking = non_blocking

    def begin_capture(self, mode: int | None = None) -> None:
        if self._gpu.capture:
            self._gpu.break_capture()
        self._gpu.capture = Capture(self.ptr, RELAXED if mode is None else mode)

    def end_capture(self) -> Graph:
        capture = self._gpu.capture
        if capture is None or capture.stream != self.ptr:
            raise errors.CUDARuntimeError("cudaErrorIllegalState: the stream is not capturing")
        if capture.mode != RELAXED and capture.thread != threading.get_ident():
            raise errors.CUDARuntimeError(
                "cudaErrorStreamCaptureWrongThread: the capture was begun by another thread"
            )
        self._gpu.capture = None
        if capture.broken:
            raise errors.CUDARuntimeError(
                "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error "
                "during capture"
            )
        return Graph._of(self._gpu, capture.work)


class Event:
    """A place in the order of work."""

    _gpu: Gpu

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self._ticket = 0
        self._captured = False

    def record(self, stream: Any = None) -> None:
        capture = self._gpu.capture
        self._captured = capture is not None and capture.stream == stream.ptr
        self._ticket = self._gpu.ticket()

    def synchronize(self) -> None:
        if self._captured:
            self._gpu.break_capture()
        self._gpu.finish(self._ticket)


class Graph:
    """Recorded work. It holds addresses, and keeps nothing alive."""

    _gpu: Gpu
    _work: tuple[Work, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("graphs are made by stream capture")

    @classmethod
    def _of(cls, gpu: Gpu, work: list[Work]) -> Graph:
        graph = cls.__new__(cls)
        graph._gpu, graph._work = gpu, tuple(work)
        return graph

    def launch(self, stream: Any = None) -> None:
        if self._gpu.capture and self._gpu.capture.stream == stream.ptr:
            self._gpu.break_capture()
        for work in self._work:
            self._gpu.submit(stream.ptr, work)

    def upload(self, stream: Any = None) -> None:
        if self._gpu.capture and self._gpu.capture.stream == stream.ptr:
            self._gpu.break_capture()
