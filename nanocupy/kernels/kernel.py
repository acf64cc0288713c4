"""What a kernel's contract file needs, free of compilers until a kernel is run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np


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

    `arguments` is a NamedTuple class. A launch passes an instance of it; the kernel's body, which
    gets an array `a` of words, reads `a[A.rows]` with `A = indices(RopeArgs)`. `start`:
    the position of the first, where others come before.
    """
    return arguments(*range(start, start + len(arguments._fields)))


def float_argument(device: Any, value: float) -> Any:
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


class Gemm:
    """The library's matrix product, out[m, n] = x[m, k] . weight[n, k]^T, f32 accumulation.

    Arguments of its Launch: (out, x, weight, m, n, k, out_stride, accumulate): device arrays (x and
    weight contiguous and of one dtype, out f32 with rows out_stride elements apart), plain ints,
    and whether the product is added to what out holds.
    """

    name = "gemm"


GEMM = Gemm()


class AllReduce:
    """The sum, or the largest, of every rank's x, on all ranks; carried out by NCCL.

    Arguments of its Launch: (x, out, count, how): device arrays of one dtype (out may be x), a
    plain int, and "sum" or "max".
    """

    name = "all_reduce"


class GatherColumns:
    """Every rank's columns side by side, on all ranks; carried out by NCCL.

    Arguments of its Launch: (x, out, scratch, rows, widths): device arrays of one dtype, x
    [rows, widths[rank]], out [rows, sum(widths)] and scratch of as many elements as out; a plain
    int, and a tuple of one plain int a rank.
    """

    name = "gather_columns"


ALL_REDUCE, GATHER_COLUMNS = AllReduce(), GatherColumns()

C_TYPES = {
    np.dtype(np.float32): "float",
    np.dtype(np.float16): "__half",
    np.dtype(ml_dtypes.bfloat16): "__nv_bfloat16",
}

FLOATS: dict[np.dtype[Any], str] = {
    np.dtype(np.float32): "f32",
    np.dtype(np.float16): "f16",
    np.dtype(ml_dtypes.bfloat16): "bf16",
}
"""What kernels' names call a dtype."""
