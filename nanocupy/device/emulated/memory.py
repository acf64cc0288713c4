"""CuPy's arrays, its memory pool and its pinned memory, as far as the CUDA device uses them."""

from __future__ import annotations

import weakref
from bisect import bisect_left, insort
from math import prod
from typing import Any, NoReturn

import numpy as np

from nanocupy.device.emulated import errors
from nanocupy.device.emulated.gpu import Block, Gpu, at
from nanocupy.device.protocols import DeviceArray

UNIT = 512  # bytes: pools round up to it


class MemoryPointer:
    """An address inside of memory that it keeps alive."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset if mem is not None else 0


class Flags:
    def __init__(self, c_contiguous: bool) -> None:
        self.c_contiguous = c_contiguous


class ndarray:
    """An array in GPU memory: its shape can be looked at from the host, its contents cannot."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, memptr: MemoryPointer) -> None:
        kind = np.dtype(dtype)
        memory = at(memptr.ptr, prod(shape) * kind.itemsize)
        self._set(memory.view(kind).reshape(shape), memptr)

    def _set(self, array: np.ndarray, memptr: MemoryPointer) -> None:
        self._array = array
        offset = array.ctypes.data - memptr.ptr if array.size else 0
        self.data = MemoryPointer(memptr, offset) if memptr.ptr else memptr
        self.shape, self.dtype, self.size = array.shape, array.dtype, array.size
        self.nbytes, self.flags = array.nbytes, Flags(array.flags.c_contiguous)
        self.strides = array.strides

    def _like(self, array: np.ndarray) -> ndarray:
        out = type(self).__new__(type(self))
        out._set(array, self.data)
        return out

    def __getitem__(self, key: Any) -> ndarray:
        found = self._array[key]
        if not isinstance(found, np.ndarray) or (found.size and found.base is None):
            raise NotImplementedError(f"[{key!r}] of an array of the emulated device's: not a view")
        return self._like(found)

    def reshape(self, *shape: Any) -> ndarray:
        if not self.flags.c_contiguous:
            raise NotImplementedError("reshape of an array that is not contiguous makes a copy")
        return self._like(self._array.reshape(*shape))

    def view(self, dtype: Any) -> ndarray:
        return self._like(self._array.view(dtype))

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


_: type[DeviceArray] = ndarray  # for the type checker: it is one


class MemoryPool:
    """Memory for arrays. What is freed stays with the pool, and serves later arrays.

    Only the books are kept that way: every array gets fresh, poisoned memory.
    """

    _gpu: Gpu

    def __init__(self) -> None:
        self._used = 0
        self._free: list[int] = []  # sizes of pieces, ascending
        weakref.finalize(self, _give_back, self._gpu, self._free).atexit = False

    def malloc(self, size: int) -> MemoryPointer:
        if size == 0:
            return MemoryPointer(None, 0)
        rounded = -(-size // UNIT) * UNIT
        if not self._reuse(rounded):
            self._grow(rounded)
        block = Block(self._gpu, size)
        self._used += rounded
        weakref.finalize(block, self._took_back, rounded).atexit = False
        return MemoryPointer(block, 0)

    def _reuse(self, size: int) -> bool:
        index = bisect_left(self._free, size)
        if index == len(self._free):
            return False
        rest = self._free.pop(index) - size
        if rest:
            insort(self._free, rest)
        return True

    def _grow(self, size: int) -> None:
        gpu = self._gpu
        gpu.unsafe()
        if gpu.reserved + size > gpu.memory:
            self.free_all_blocks()
        if gpu.reserved + size > gpu.memory:
            raise errors.OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes "
                f"(allocated so far: {self.total_bytes():,} bytes)"
            )
        gpu.reserved += size

    def _took_back(self, size: int) -> None:
        self._used -= size
        insort(self._free, size)

    def free_all_blocks(self) -> None:
        self._gpu.unsafe()
        _give_back(self._gpu, self._free)

    def used_bytes(self) -> int:
        return self._used

    def total_bytes(self) -> int:
        return self._used + sum(self._free)


def _give_back(gpu: Gpu, free: list[int]) -> None:
    gpu.reserved -= sum(free)
    free.clear()


class PinnedMemoryPointer(np.ndarray):
    """Host memory that does not move, as the buffer of bytes that CuPy's is too."""

    @property
    def ptr(self) -> int:
        return int(self.ctypes.data)


def alloc_pinned_memory(gpu: Gpu, size: int) -> PinnedMemoryPointer:
    gpu.unsafe()
    memory = np.empty(size, np.uint8)
    gpu.pinned.add(memory.ctypes.data, size)
    weakref.finalize(memory, gpu.pinned.remove, memory.ctypes.data).atexit = False
    return memory.view(PinnedMemoryPointer)
