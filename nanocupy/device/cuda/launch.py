"""What a launch must be before the driver sees it, which would take more, and misread it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nanocupy.device.base import KernelError, Launch
from nanocupy.device.cuda.blas import check_gemm

SCALARS = (np.int32, np.int64, np.float32)
MOST_THREADS = 1024  # of a block
MOST_BLOCKS = (2**31 - 1, 65535, 65535)  # of a grid


@contextmanager
def naming(name: str) -> Iterator[None]:
    """What CuPy raises (every error of its own is a RuntimeError), as KernelError with a name."""
    try:
        yield
    except KernelError:
        raise
    except RuntimeError as error:
        raise KernelError(f"[{name}] {error}") from error


def is_gemm(launch: Launch) -> bool:
    """Whether it is the library's matrix product and no kernel of ours."""
    return bool(launch.kernel.name == "gemm")


def check(launch: Launch, ndarray: Any, most_shared: int) -> None:
    """Refuse what a kernel would read as something else, or no GPU would run.

    Args:
        ndarray: of the device's.
        most_shared: bytes of shared memory that a block can have.

    Raises:
        TypeError: an argument is neither a contiguous array of the device's nor a typed scalar.
        KernelError: the grid, the block or its shared memory is out of bounds.
    """
    if is_gemm(launch):
        check_gemm(launch, ndarray)
        return
    name = launch.kernel.name
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
