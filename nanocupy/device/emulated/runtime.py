"""CUDA's runtime functions that the CUDA device calls by CuPy's names, and the device object."""

from __future__ import annotations

import ctypes
from typing import Any

from nanocupy.device.emulated import errors
from nanocupy.device.emulated.gpu import THREAD_LOCAL, Gpu

CAPABILITY = "80"
MULTIPROCESSORS = 4
MOST_SHARED = 99 << 10  # bytes a block can ask for; the least of any GPU that the kernels serve
PLAIN_SHARED = 48 << 10  # without asking
# Values of cudaError.
INVALID_HANDLE, NOT_READY, LAUNCH_FAILURE, CAPTURE_UNSUPPORTED = 400, 600, 719, 900


class Runtime:
    """The module `cupy.cuda.runtime`."""

    memcpyHostToDevice = 1
    memcpyDeviceToHost = 2
    memcpyDeviceToDevice = 3
    streamCaptureModeThreadLocal = THREAD_LOCAL
    CUDARuntimeError = errors.CUDARuntimeError

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def memcpyAsync(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        gpu = self._gpu
        to_host, to_device = self.memcpyDeviceToHost, self.memcpyHostToDevice
        if kind not in (to_host, to_device, self.memcpyDeviceToDevice):
            raise errors.CUDARuntimeError("cudaErrorInvalidMemcpyDirection")
        host = {to_host: dst, to_device: src}.get(kind)
        pinned = host is None or size == 0 or gpu.pinned.holds(host, size)

        def check() -> None:
            for address in (dst, src):
                if address != host:
                    gpu.check(address, size)
                elif pinned and size and not gpu.pinned.holds(address, size):
                    raise errors.illegal_address(address, size)

        def copy() -> None:
            check()
            ctypes.memmove(dst, src, size)

        check()
        if not pinned and gpu.capture and gpu.capture.stream == stream:
            gpu.break_capture()
        gpu.submit(stream, copy)
        if not pinned:  # the driver stages it, and returns when the host's memory is done with
            gpu.finish()

    def memcpy2DAsync(
        self, dst: int, dpitch: int, src: int, spitch: int, width: int, height: int, kind: int,
        stream: int,
    ) -> None:  # fmt: skip
        """Rows of `width` bytes, within the GPU's memory only."""
        gpu = self._gpu
        if kind != self.memcpyDeviceToDevice:
            raise errors.CUDARuntimeError("cudaErrorInvalidMemcpyDirection")
        if min(dpitch, spitch) < width:
            raise errors.CUDARuntimeError("cudaErrorInvalidPitchValue")

        def copy() -> None:
            for start, pitch in ((dst, dpitch), (src, spitch)):
                gpu.check(start, (height - 1) * pitch + width if height * width else 0)
            for row in range(height):
                ctypes.memmove(dst + row * dpitch, src + row * spitch, width)

        gpu.submit(stream, copy)

    def memsetAsync(self, ptr: int, value: int, size: int, stream: int) -> None:
        def fill() -> None:
            self._gpu.check(ptr, size)
            ctypes.memset(ptr, value, size)

        self._gpu.submit(stream, fill)

    def streamQuery(self, stream: int) -> int:
        """A status, and no exception: 0 is that all is done, 600 that it is not yet."""
        gpu = self._gpu
        if stream not in gpu.streams:
            return INVALID_HANDLE
        if gpu.capture and gpu.capture.stream == stream:
            gpu.capture.broken = True
            return CAPTURE_UNSUPPORTED
        return {True: 0, False: NOT_READY, None: LAUNCH_FAILURE}[gpu.query()]

    def streamSynchronize(self, stream: int) -> None:
        gpu = self._gpu
        if stream not in gpu.streams:
            raise errors.CUDARuntimeError("cudaErrorInvalidResourceHandle")
        if gpu.capture and gpu.capture.stream == stream:
            gpu.break_capture()
        gpu.finish()


class Device:
    """The one GPU there is."""

    _gpu: Gpu

    def __init__(self, device: int = 0) -> None:
        if device != 0:
            raise errors.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.compute_capability = CAPABILITY
        self.attributes = {
            "MultiProcessorCount": MULTIPROCESSORS,
            "MaxSharedMemoryPerBlockOptin": MOST_SHARED,
        }

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def mem_info(self) -> tuple[int, int]:
        return self._gpu.memory - self._gpu.reserved, self._gpu.memory
