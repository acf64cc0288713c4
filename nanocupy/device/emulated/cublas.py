"""The functions of cuBLAS that the CUDA device calls, by NumPy."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nanocupy.device.cuda import blas
from nanocupy.device.emulated.gpu import ALIGN, Gpu, at

SUCCESS, NOT_INITIALIZED, ALLOC_FAILED, INVALID_VALUE, EXECUTION_FAILED = 0, 1, 3, 7, 13
INTERNAL_ERROR, NOT_SUPPORTED = 14, 15
DTYPES = {number: dtype for dtype, number in blas.CUDA_TYPES.items()}


class _Handle:
    stream = 0
    workspace = 0, 0
    math_mode = 0


class Cublas:
    """libcublas, as `blas.library` gives it: names, arguments and status codes are its own."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._handles: dict[int, _Handle] = {}
        self._loaded: set[tuple[int | bool, ...]] = set()  # kernels, by what asked for them

    def cublasCreate_v2(self, handle: Any) -> int:
        if self._gpu.capture:
            return ALLOC_FAILED
        handle._obj.value = next(self._gpu.handles)
        self._handles[handle._obj.value] = _Handle()
        return SUCCESS

    def cublasDestroy_v2(self, handle: int) -> int:
        return SUCCESS if self._handles.pop(handle, None) else NOT_INITIALIZED

    def cublasSetStream_v2(self, handle: int, stream: int) -> int:
        if handle not in self._handles:
            return NOT_INITIALIZED
        self._handles[handle].stream = stream
        self._handles[handle].workspace = 0, 0
        return SUCCESS if stream in self._gpu.streams else INVALID_VALUE

    def cublasSetWorkspace_v2(self, handle: int, workspace: int, nbytes: int) -> int:
        if handle not in self._handles:
            return NOT_INITIALIZED
        if workspace % ALIGN or not self._gpu.device.holds(workspace, nbytes):
            return INVALID_VALUE
        self._handles[handle].workspace = workspace, nbytes
        return SUCCESS

    def cublasSetMathMode(self, handle: int, mode: int) -> int:
        if handle not in self._handles:
            return NOT_INITIALIZED
        self._handles[handle].math_mode = mode
        return SUCCESS

    def cublasGemmEx(
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int,
        alpha: int, a: int, a_type: int, lda: int, b: int, b_type: int, ldb: int,
        beta: int, c: int, c_type: int, ldc: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        """c = alpha op(a) op(b) + beta c, of matrices stored by columns."""
        if handle not in self._handles:
            return NOT_INITIALIZED
        owner = self._handles[handle]
        if owner.stream not in self._gpu.streams:
            return EXECUTION_FAILED
        if self._gpu.capture and not owner.workspace[1]:
            return ALLOC_FAILED  # it would allocate
        if compute != blas.COMPUTE_32F or a_type != b_type or c_type != 0 or a_type not in DTYPES:
            return NOT_SUPPORTED
        rows_a, rows_b = (k if transa else m), (n if transb else k)
        if min(m, n, k) < 0 or lda < max(1, rows_a) or ldb < max(1, rows_b) or ldc < max(1, m):
            return INVALID_VALUE
        scale, keep = (ctypes.c_float.from_address(x).value for x in (alpha, beta))
        kernel = (a_type, transa, transb, m, n, k, keep == 0)
        if self._gpu.capture and kernel not in self._loaded:
            return INTERNAL_ERROR  # a kernel is loaded when it is first used, and not now
        self._loaded.add(kernel)
        columns = (m if transa else k), (k if transb else n)
        kind = DTYPES[a_type]

        def run() -> None:
            left = self._columns(a, kind, rows_a, columns[0], lda)
            right = self._columns(b, kind, rows_b, columns[1], ldb)
            out = self._columns(c, np.dtype(np.float32), m, n, ldc)
            # In double, so that a row's sum does not depend on how many rows there are: each is
            # the exact sum, rounded once. A GPU sums in single, in an order of its own.
            with np.errstate(all="ignore"):  # rows that nobody asked for hold anything
                x = (left.T if transa else left).astype(np.float64)
                y = (right.T if transb else right).astype(np.float64)
                product = scale * (x @ y)
                out[...] = product + keep * out if keep else product

        self._gpu.submit(owner.stream, run)
        return SUCCESS

    def _columns(
        self, address: int, dtype: np.dtype[Any], rows: int, columns: int, stride: int
    ) -> np.ndarray:
        """A matrix stored by columns, `stride` elements apart."""
        size = ((columns - 1) * stride + rows) * dtype.itemsize
        self._gpu.check(address, size)
        strides = (dtype.itemsize, stride * dtype.itemsize)
        return as_strided(at(address, size).view(dtype), (rows, columns), strides)
