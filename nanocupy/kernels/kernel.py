"""The kinds of kernels, and how they take arguments. Compilers are loaded when a kernel runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows


class CpuKernel:
    """A CPU kernel by `"operation:function"`, linked on first use.

    The function stands in `kernels/<operation>/cpu_body.py`.
    """

    by_numba = True

    def __init__(self, source: str) -> None:
        operation, self.name = source.split(":")
        self.source = f"nanocupy.kernels.{operation}.cpu_body:{self.name}"

    def __repr__(self) -> str:
        return f"CpuKernel({self.source})"

    @cached_property
    def _kernel(self) -> Any:
        from nanocupy.device.cpu.jit import Kernel

        return Kernel(self.source)

    @property
    def ready(self) -> bool:
        """Whether `address` needs no compilation."""
        return bool(self._kernel.ready)

    @property
    def address(self) -> int:
        """Address of the machine code; compiled now if no cache has it."""
        return int(self._kernel.address)


def indices(arguments: Any, start: int = 0) -> Any:
    """The position of each argument of a kernel, by name.

    A launch passes an instance of a NamedTuple class. The kernel's body, which gets an array `a` of
    words, reads `a[A.rows]` with `A = indices(RopeArgs)`.

    Args:
        arguments: the class.
        start: the position of the first argument, where others come before.
    """
    return arguments(*range(start, start + len(arguments._fields)))


def float_argument(device: Device, value: float) -> DeviceArray:
    """A float as an argument of a CPU kernel: the address of one on the device."""
    return device.asarray(np.array([value], np.float32))


@dataclass(frozen=True)
class CudaKernel:
    """A CUDA kernel, `cuda_kernels/<file>.cu`, as one instance of its template.

    Args:
        file: without its ending.
        expression: a C++ name expression: "rms_norm<__nv_bfloat16>".
    """

    file: str
    expression: str

    @property
    def name(self) -> str:
        return self.expression.partition("<")[0]


@dataclass(frozen=True)
class WrittenKernel(CudaKernel):
    """A CUDA kernel whose source is no file of `cuda_kernels`: generated, or a user's.

    Args:
        file: what to call the source in messages and in the cache.
        text: the source.
    """

    text: str


class LibraryKernel:
    """What a library does on CUDA where there is no kernel of ours."""

    def __init__(self, name: str) -> None:
        self.name = name


GEMM = LibraryKernel("gemm")
"""out[m, n] = x[m, k] . weight[n, k]^T with f32 sums, by cuBLAS.

Arguments: (out, x, weight, m, n, k, out_stride, accumulate). x and weight are contiguous and of one
dtype; out is f32, its rows out_stride elements apart. accumulate: the product is added to out.
"""
ALL_REDUCE = LibraryKernel("all_reduce")
"""The sum or the max of every rank's x, on all ranks, by NCCL.

Arguments: (x, out, count, how), x and out of one dtype or the same array; how is "sum" or "max".
"""
GATHER_COLUMNS = LibraryKernel("gather_columns")
"""Every rank's columns side by side, on all ranks, by NCCL.

Arguments: (x, out, scratch, rows, widths), arrays of one dtype: x [rows, widths[rank]],
out [rows, sum(widths)], scratch with as many elements as out; widths has one int a rank.
"""

MakeLaunches = Callable[[Rows], Launch | Iterable[Launch]]
"""The launches of an operation for as many rows as there can be."""
Shared = Callable[[Any, Callable[[], Any]], Any]
"""shared(key, make): working memory that launches of one size share, made once."""
