"""Matrix products by cuBLAS, on a handle and a workspace of our own.

CuPy's calls into cuBLAS refuse to run while a stream captures, and let cuBLAS allocate workspaces.
With a workspace of ours, a captured product allocates nothing.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from nanocupy.device.protocols import KernelError, Launch
from nanocupy.dtypes import bfloat16, float16, float32

# Values of cublas_api.h and library_types.h.
N, T = 0, 1
COMPUTE_32F = 68  # f32 sums; f32 inputs are not rounded to TF32
DEFAULT_ALGORITHM = -1
NO_REDUCED_PRECISION = 16  # partial sums of split-K stay f32
CUDA_TYPES = {float32: 0, float16: 2, bfloat16: 14}

_p, _i, _size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_matrix = [_p, _i, _i]  # address, type, leading dimension
SIGNATURES: dict[str, list[Any]] = {
    "cublasCreate_v2": [_p],
    "cublasDestroy_v2": [_p],
    "cublasSetStream_v2": [_p, _p],
    "cublasSetWorkspace_v2": [_p, _p, _size],
    "cublasSetMathMode": [_p, _i],
    "cublasGemmEx": [_p, _i, _i, _i, _i, _i, _p, *_matrix, *_matrix, _p, *_matrix, _i, _i],
}


def library(path: str) -> ctypes.CDLL:
    """libcublas, with the types of the functions used here."""
    loaded = ctypes.CDLL(path)
    for name, types in SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = types, ctypes.c_int
    return loaded


def workspace_bytes(capability: int) -> int:
    """The size that NVIDIA recommends: Hopper's kernels need more."""
    return (32 if capability >= 90 else 8) << 20


class Blas:
    """One handle on one stream. Not for several threads at once.

    Args:
        library: cuBLAS's functions.
        stream: where products run.
        workspace: a device array that is this handle's alone.
    """

    def __init__(self, library: Any, stream: Any, workspace: Any) -> None:
        self._library, self._workspace = library, workspace
        self._handle: int | None = None
        handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle.value
        # The stream first: setting it resets the workspace.
        self._call("cublasSetStream_v2", self._handle, stream.ptr)
        self._call("cublasSetWorkspace_v2", self._handle, workspace.data.ptr, workspace.nbytes)
        self._call("cublasSetMathMode", self._handle, NO_REDUCED_PRECISION)
        self._scalars = ctypes.c_float(0), ctypes.c_float(1)

    def _call(self, name: str, *args: Any) -> None:
        if status := getattr(self._library, name)(*args):
            raise KernelError(f"[gemm] {name} failed with status {status}")

    def gemm(self, launch: Launch) -> None:
        """Run a `GEMM` launch. See `kernels.kernel.GEMM` for its arguments."""
        out, x, weight, m, n, k, out_stride, accumulate = launch.args
        kind = CUDA_TYPES[x.dtype]
        zero, one = (ctypes.addressof(scalar) for scalar in self._scalars)
        # cuBLAS counts by columns: our rows are its columns, so it computes weight . x^T.
        shape = (T, N, n, m, k)
        inputs = (weight.data.ptr, kind, k, x.data.ptr, kind, k)
        output = (out.data.ptr, CUDA_TYPES[out.dtype], out_stride)
        how = (COMPUTE_32F, DEFAULT_ALGORITHM)
        beta = one if accumulate else zero
        self._call("cublasGemmEx", self._handle, *shape, one, *inputs, beta, *output, *how)

    def close(self) -> None:
        """Release the handle. Idempotent."""
        if self._handle is not None:
            self._call("cublasDestroy_v2", self._handle)
            self._handle = None


def check_gemm(launch: Launch, ndarray: Any) -> None:
    """Refuse a product that cuBLAS would read or write outside its arrays."""
    out, x, weight, m, n, k, out_stride, _ = launch.args
    for name, array, least in (
        ("out", out, (m - 1) * out_stride + n),
        ("x", x, m * k),
        ("weight", weight, n * k),
    ):
        if not isinstance(array, ndarray) or not array.flags.c_contiguous:
            raise TypeError(f"[gemm] {name} must be a contiguous array of the device's")
        if array.size < least:
            raise ValueError(f"[gemm] {name} has {array.size} elements, the product needs {least}")
    if x.dtype != weight.dtype or x.dtype not in CUDA_TYPES or out.dtype != np.float32:
        raise TypeError(
            f"[gemm] x is {x.dtype}, weight {weight.dtype}, out {out.dtype}: expected one of "
            "float32, float16, bfloat16 for both inputs, and float32 for out"
        )
    if min(m, n, k) < 1 or out_stride < n:
        raise ValueError(f"[gemm] m={m}, n={n}, k={k}, out_stride={out_stride}")
