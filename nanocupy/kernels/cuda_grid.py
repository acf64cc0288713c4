"""Blocks and threads of CUDA kernels that share a way of dividing rows."""

from __future__ import annotations

from typing import Any

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CudaKernel

BLOCK = 256  # threads of an elementwise kernel, four elements each


def elementwise(kernel: CudaKernel, args: tuple[Any, ...], rows: Rows, width: int) -> Launch:
    """A launch of one or more blocks a row of `width` elements."""
    return Launch(kernel, args, (int(rows), -(-width // (4 * BLOCK)), 1), BLOCK)


def norm_threads(size: int) -> int:
    """Threads that norm a vector: a warp for a head, more threads for more elements."""
    return 32 if size <= 128 else 128 if size <= 1024 else 256 if size <= 4096 else 512
