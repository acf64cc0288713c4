"""What every device has: memory, launches, graphs.

A device runs kernels; a launch is a kernel with its arguments; a list of launches is captured into
a graph and replayed with no Python between kernels. What changes from step to step is the contents
of static buffers, never the launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Rows(int):
    """A number of rows that is known only when a graph runs: an int that is the most it can be.

    Kernels read the number in use from `count`, an int64 array of one element on the device.
    """

    count: Any

    def __new__(cls, capacity: int, count: Any) -> Rows:
        rows = super().__new__(cls, capacity)
        rows.count = count
        return rows

    def __mul__(self, other: Any) -> Any:
        return self if other == 1 and not isinstance(other, Rows) else int(self) * other

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"Rows(<={int(self)})"


class Launch(NamedTuple):
    """One kernel with its arguments, and how many threads run it where the device asks for that.

    Args:
        kernel: a `CpuKernel`, a `CudaKernel`, or what a library does: `GEMM`, `ALL_REDUCE`,
            `GATHER_COLUMNS` (see `kernels.base`).
        args: for the CPU, device arrays (passed by address) and plain integers; floats travel as
            one-element arrays. For CUDA, device arrays and typed scalars (np.int32, np.int64,
            np.float32), so that no driver guesses a width.
        grid: CUDA: blocks along x, y, z.
        block: CUDA: threads a block.
        shared: CUDA: bytes of dynamic shared memory a block.
    """

    kernel: Any
    args: tuple[Any, ...]
    grid: tuple[int, int, int] = (1, 1, 1)
    block: int = 1
    shared: int = 0


def fixed_rows(device: Device, count: int) -> Rows:
    """`count` rows, always."""
    return Rows(count, device.asarray(np.array([count], np.int64)))


class KernelError(RuntimeError):
    """A kernel returned an error code, or could not be launched."""


class Graph(Protocol):
    """A captured list of launches."""

    launches: Sequence[Launch]

    def run(self) -> None:
        """Run every launch in order. Raises KernelError naming the kernel that failed."""


class Mailbox(Protocol):
    """The same bytes on the host and on the device; on a CPU, one memory.

    Attributes:
        host: uint8 [nbytes], a NumPy array.
        device: uint8 [nbytes], an array of the device's.
    """

    host: np.ndarray
    device: Any

    def send(self, nbytes: int) -> None:
        """Copy the first bytes to the device, in order with launches."""

    def receive(self, nbytes: int) -> None:
        """Copy the first bytes to the host, and wait until they and all launches are there."""


class Device(Protocol):
    """A place that holds arrays and runs kernels.

    Attributes:
        name: "cpu", "cuda" or "emulated".
        kind: which kernels it runs: "cpu" or "cuda".
        link: what joins it to the devices of other ranks, with `rank` and `ranks`; None: it works
            alone.
    """

    name: str
    kind: str
    link: Any

    def empty(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> Any:
        """A zeroed array of the device's."""

    def asarray(self, array: np.ndarray) -> Any:
        """The device's copy of a host array."""

    def write(self, to: Any, array: np.ndarray) -> None:
        """Copy a host array into a device array of its shape and dtype."""

    def read(self, array: Any) -> np.ndarray:
        """The array's contents on the host, after everything that was launched before.

        Good until the next launch: it may be the array's own memory.
        """

    def mailbox(self, nbytes: int) -> Mailbox:
        """Bytes that travel between host and device in one copy."""

    def capture(self, launches: Sequence[Launch]) -> Graph:
        """A graph of the launches; compiles what is not compiled yet."""

    def eager(self, launches: Sequence[Launch]) -> Graph:
        """The same list, run one launch at a time."""

    def memory_active(self) -> int:
        """Bytes of arrays alive."""

    def compile(self, launches: Sequence[Launch]) -> None:
        """Make the kernels ready; compiles what is not compiled yet."""

    def progress(self) -> int:
        """A number that grows while something runs. From any thread."""

    def interrupt(self) -> None:
        """What waits for other ranks gives up, now and from now on. From any thread."""


Tick = Callable[[int, int], None]
