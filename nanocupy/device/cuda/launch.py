"""Checks of launches: the driver would accept wrong arguments, and misread them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nanocupy.device.cuda.blas import CUDA_TYPES, check_gemm
from nanocupy.device.protocols import KernelError, Launch

SCALARS = (np.int32, np.int64, np.float32)
MOST_THREADS = 1024  # of a block
MOST_BLOCKS = (2**31 - 1, 65535, 65535)  # of a grid


@contextmanager
def as_kernel_error(name: str) -> Iterator[None]:
    """Raise CuPy's errors, which are all RuntimeErrors, as KernelErrors with a name."""
    try:
        yield
    except KernelError:
        raise
    except RuntimeError as error:
        raise KernelError(f"[{name}] {error}") from error


def check(launch: Launch, ndarray: Any, most_shared: int) -> None:
    """Refuse arguments that a kernel would misread, and sizes that no GPU runs.

    Args:
        ndarray: of the device's.
        most_shared: bytes of shared memory that a block can have.

    Raises:
        TypeError: an argument is neither a contiguous array of the device's nor a typed scalar.
        KernelError: the grid, the block or its shared memory is out of bounds.
    """
    name = launch.kernel.name
    if name in LIBRARIES:
        LIBRARIES[name](launch, ndarray)
        return
    if not hasattr(launch.kernel, "expression"):
        raise TypeError(f"[{name}] {launch.kernel!r} is not a CUDA kernel")
    for index, value in enumerate(launch.args):
        _check_argument(f"[{name}] argument {index}", value, ndarray)
    if not 1 <= launch.block <= MOST_THREADS:
        raise KernelError(f"[{name}] {launch.block} threads a block: expected 1 to {MOST_THREADS}")
    bounds = zip(launch.grid, MOST_BLOCKS, strict=True)
    if not all(1 <= size <= most for size, most in bounds):
        raise KernelError(f"[{name}] grid {launch.grid}: expected 1 to {MOST_BLOCKS} blocks")
    if launch.shared > most_shared:
        raise KernelError(
            f"[{name}] {launch.shared:,} bytes of shared memory a block: there are {most_shared:,}"
        )


def _check_argument(place: str, value: Any, ndarray: Any) -> None:
    if isinstance(value, SCALARS):
        return
    if not isinstance(value, ndarray):
        raise TypeError(
            f"{place} is {type(value).__name__} {value!r}: expected an array of the device's, or "
            "np.int32, np.int64 or np.float32"
        )
    if not value.flags.c_contiguous:
        raise TypeError(f"{place}, of shape {value.shape}, is not contiguous")


# ---- launches of libraries


def check_all_reduce(launch: Launch, ndarray: Any) -> None:
    """Refuse a sum that NCCL would read or write outside its arrays."""
    x, out, count, operation = launch.args
    _check_parts("all_reduce", {"x": (x, count), "out": (out, count)}, ndarray)
    if operation not in ("sum", "max"):
        raise ValueError(f"[all_reduce] {operation!r}: expected 'sum' or 'max'")


def check_gather(launch: Launch, ndarray: Any) -> None:
    """Refuse columns that do not fit. `nccl` checks this rank's own width."""
    x, out, scratch, rows, widths = launch.args
    if not widths or min(widths) < 1:
        raise ValueError(f"[gather_columns] widths {widths}: expected a positive one for each rank")
    count = rows * sum(widths)
    parts = {"x": (x, rows), "out": (out, count), "scratch": (scratch, count)}
    _check_parts("gather_columns", parts, ndarray)


def _check_parts(name: str, parts: dict[str, tuple[Any, int]], ndarray: Any) -> None:
    """Args: parts: arrays of one dtype, and the elements that each needs."""
    for part, (array, count) in parts.items():
        if not isinstance(array, ndarray) or not array.flags.c_contiguous:
            raise TypeError(f"[{name}] {part} must be a contiguous array of the device's")
        if not 1 <= count <= array.size:
            raise ValueError(f"[{name}] {part} has {array.size} elements, {count} are asked for")
    kinds = [array.dtype for array, _ in parts.values()]
    if len(set(kinds)) > 1 or kinds[0] not in CUDA_TYPES:
        raise TypeError(
            f"[{name}] {', '.join(parts)} are {', '.join(map(str, kinds))}: expected one of "
            "float32, float16, bfloat16 for all"
        )


def in_library(launch: Launch) -> bool:
    """Whether a library runs it, not a kernel of ours."""
    return launch.kernel.name in LIBRARIES


def is_collective(launch: Launch) -> bool:
    """Whether all ranks must launch it."""
    return launch.kernel.name in ("all_reduce", "gather_columns")


LIBRARIES = {
    "gemm": check_gemm,
    "all_reduce": check_all_reduce,
    "gather_columns": check_gather,
}
"""What can be launched besides kernels, each with the check of its arguments."""
