"""Memory of a GPU: arrays in a pool, copies to and from the host, staging buffers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nanocupy.device.cuda.context import Context
from nanocupy.device.cuda.launch import as_kernel_error
from nanocupy.device.cuda.upload import Uploader, pinned

ADVICE = (
    "lower --gpu-memory-utilization, --kv-memory, --num-kv-blocks, --max-num-batched-tokens or "
    "--max-num-seqs, choose a smaller model, or end other programs that use the GPU"
)


class Memory:
    """The arrays of one GPU. Only contiguous arrays are copied."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pool = context.cupy.cuda.MemoryPool()
        self._uploader = Uploader(context.cupy, context.stream)

    def uninitialized(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> Any:
        """An array with any contents. Raises MemoryError with advice."""
        context, dtype = self._context, np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        with context.current(), as_kernel_error("memory"):
            try:
                memory = self._pool.malloc(nbytes)
            except MemoryError as error:  # CuPy's OutOfMemoryError is one
                free, total = context.memory_info()
                raise MemoryError(
                    f"[{context.name}] no memory for {nbytes:,} bytes: {self.active():,} are in "
                    f"use here, {free:,} of the GPU's {total:,} are free: {ADVICE}"
                ) from error
            return context.cupy.ndarray(shape, dtype, memory)

    def empty(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> Any:
        """A zeroed array."""
        array, context = self.uninitialized(shape, dtype), self._context
        if array.nbytes:
            with context.current(), as_kernel_error("memory"):
                stream = context.stream.ptr
                context.cupy.cuda.runtime.memsetAsync(array.data.ptr, 0, array.nbytes, stream)
        return array

    def write(self, to: Any, array: np.ndarray) -> None:
        """Copy a host array to a device array."""
        if to.shape != array.shape or to.dtype != array.dtype:
            raise ValueError(
                f"[write] {array.dtype} {array.shape} into {to.dtype} {to.shape} of the device's"
            )
        _check_contiguous(to, "write")
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._context.wait_for_ranks()
        with self._context.current(), as_kernel_error("write"):
            self._uploader.write(to.data.ptr, source)

    def read(self, array: Any) -> np.ndarray:
        """A copy on the host, of what the array holds after everything launched before."""
        _check_contiguous(array, "read")
        out, context = np.empty(array.shape, array.dtype), self._context
        context.wait_for_ranks()
        with context.current(), as_kernel_error("read"):
            if out.nbytes:
                kind = context.cupy.cuda.runtime.memcpyDeviceToHost
                context.copy(out.ctypes.data, array.data.ptr, out.nbytes, kind)
        context.wait()
        return out

    def active(self) -> int:
        """Bytes of arrays alive."""
        return int(self._pool.used_bytes())

    def free(self) -> int:
        """Bytes of the GPU's memory that nobody has, not even this pool."""
        with self._context.current(), as_kernel_error("memory"):
            self._pool.free_all_blocks()
            return self._context.memory_info()[0]


class CudaStagingBuffer:
    """Bytes in pinned host memory and as many on the device, one copy apart."""

    def __init__(self, context: Context, memory: Memory, nbytes: int) -> None:
        self._context = context
        with context.current(), as_kernel_error("staging_buffer"):
            self.host = pinned(context.cupy, nbytes)
        self.host[:] = 0
        self.device = memory.empty((nbytes,), np.uint8)

    def send(self, nbytes: int) -> None:
        kind = self._context.cupy.cuda.runtime.memcpyHostToDevice
        self._copy(self.device.data.ptr, self.host.ctypes.data, nbytes, kind)
        self._context.counters["uploads"] += 1

    def receive(self, nbytes: int) -> None:
        kind = self._context.cupy.cuda.runtime.memcpyDeviceToHost
        self._copy(self.host.ctypes.data, self.device.data.ptr, nbytes, kind)
        self._context.wait()
        self._context.counters["downloads"] += 1

    def _copy(self, to: int, source: int, nbytes: int, kind: int) -> None:
        if not 0 <= nbytes <= len(self.host):
            raise ValueError(f"[staging_buffer] {nbytes} of {len(self.host)} bytes")
        with self._context.current(), as_kernel_error("staging_buffer"):
            self._context.copy(to, source, nbytes, kind)


def _check_contiguous(array: Any, action: str) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"[{action}] an array of shape {array.shape} that is not contiguous")
