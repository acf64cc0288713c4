"""Modules and kernels: CuPy's RawModule, its kernels, and their launch."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from nanocupy.device.emulated import build, errors
from nanocupy.device.emulated.build import MOST_THREADS
from nanocupy.device.emulated.gpu import Gpu
from nanocupy.device.emulated.memory import ndarray
from nanocupy.device.emulated.runtime import MOST_SHARED, PLAIN_SHARED
from nanocupy.device.protocols import KernelError

LIMITS = (2**31 - 1, 65535, 65535)
SCALARS: dict[str, tuple[Any, Any]] = {
    "i": (np.int32, ctypes.c_int32),
    "l": (np.int64, ctypes.c_int64),
    "f": (np.float32, ctypes.c_float),
}
Size = tuple[int, int, int]


class RawModule:
    """Machine code from a file."""

    _gpu: Gpu

    def __init__(self, *, path: str) -> None:
        self._path = path

    def get_function(self, name: str) -> RawKernel:
        modules = self._gpu.modules
        if self._path not in modules:
            self._gpu.unsafe()
            modules[self._path] = build.Library(self._path), {}
        library, functions = modules[self._path]
        if name not in functions:
            functions[name] = Function._of(self._gpu, library, name)
        return RawKernel._of(functions[name])


class RawKernel:
    """A kernel with its attributes; `kernel` is what launches."""

    kernel: Function

    @classmethod
    def _of(cls, function: Function) -> RawKernel:
        made = cls.__new__(cls)
        made.kernel = function
        return made

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self.kernel._most_shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        self.kernel._gpu.unsafe()
        if not 0 <= size <= MOST_SHARED:
            raise errors.CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self.kernel._most_shared = size


class Function:
    """A kernel that can be launched."""

    @classmethod
    def _of(cls, gpu: Gpu, library: build.Library, name: str) -> Function:
        made = cls.__new__(cls)
        place, _, made._name = name.partition(" ")
        made._gpu, made._library, made._index = gpu, library, int(place[1:])
        made._signature = library.signature(made._index)
        made._most_shared = PLAIN_SHARED
        return made

    _gpu: Gpu
    _library: build.Library
    _index: int
    _name: str
    _signature: str
    _most_shared: int

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        blocks, threads = _three(grid), _three(block)
        self._check(blocks, threads, shared_mem)
        values = self._values(args)
        arrays = [(a.data.ptr, a.nbytes) for a in args if isinstance(a, ndarray)]
        gpu = self._gpu

        def run() -> None:
            for address, nbytes in arrays:
                gpu.check(address, nbytes)
            try:
                self._library.launch(
                    self._index, blocks, threads, values, shared_mem, gpu.order, gpu.seed
                )
            except KernelError as error:
                raise KernelError(f"[{self._name}] {error}") from error

        gpu.submit(stream.ptr, run)

    def _check(self, grid: Size, block: Size, shared: int) -> None:
        sizes = zip(grid, LIMITS, strict=True)
        threads = block[0] * block[1] * block[2]
        if not all(1 <= n <= most for n, most in sizes) or not 1 <= threads <= MOST_THREADS:
            raise errors.CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: invalid argument: grid {grid}, block {block}"
            )
        if shared > self._most_shared:
            raise errors.CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: invalid argument: {shared} bytes of shared memory"
            )

    def _values(self, args: tuple[Any, ...]) -> list[Any]:
        """The arguments as C values. CUDA would take others, and the kernel would misread them."""
        if len(args) != len(self._signature):
            raise TypeError(
                f"[{self._name}] {len(args)} arguments, the kernel has {len(self._signature)}"
            )
        return [self._value(i, a) for i, a in enumerate(args)]

    def _value(self, index: int, value: Any) -> Any:
        letter = self._signature[index]
        if letter == "p":
            if isinstance(value, ndarray) and value.flags.c_contiguous:
                return ctypes.c_void_p(value.data.ptr)
            wanted = "contiguous array"
        else:
            scalar, as_c = SCALARS[letter]
            if isinstance(value, scalar):
                return as_c(value.item())
            wanted = scalar.__name__
        raise TypeError(
            f"[{self._name}] argument {index} is {type(value).__name__}, the kernel has a {wanted}"
        )


def _three(size: tuple[int, ...]) -> Size:
    x, y, z = (*size, 1, 1)[:3]
    return x, y, z
