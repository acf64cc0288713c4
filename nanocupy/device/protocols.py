"""What every device has: memory, launches, graphs.

A device runs kernels; a launch is a kernel with its arguments; a list of launches is captured into
a graph and replayed with no Python between kernels. What changes from step to step is the contents
of static buffers, never the launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from nanocupy.distributed.group import Group


class DeviceArray(Protocol):
    """An array in a device's memory: what NumPy's, CuPy's and the emulator's arrays share.

    Indexing, `reshape` and `view` give views. `Device.read` brings the contents to the host.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def size(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def flags(self) -> Any: ...

    def __getitem__(self, key: Any, /) -> DeviceArray: ...

    def reshape(self, first: Any, /, *shape: Any) -> DeviceArray: ...

    def view(self, dtype: Any, /) -> DeviceArray: ...


class Rows(int):
    """A number of rows that is known only when a graph runs: an int that is the most it can be.

    Kernels read the number in use from `count`, an int64 array of one element on the device.
    """

    count: DeviceArray

    def __new__(cls, capacity: int, count: DeviceArray) -> Rows:
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
            `GATHER_COLUMNS` (see `kernels.kernel`).
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

    @property
    def launches(self) -> Sequence[Launch]: ...

    def run(self) -> None:
        """Run every launch in order. Raises KernelError naming the kernel that failed."""


class StagingBuffer(Protocol):
    """The same bytes on the host and on the device; on a CPU, one memory."""

    @property
    def host(self) -> np.ndarray:
        """uint8 [nbytes], in the host's memory."""

    @property
    def device(self) -> DeviceArray:
        """uint8 [nbytes], in the device's memory."""

    def send(self, nbytes: int) -> None:
        """Copy the first bytes to the device, in order with launches."""

    def receive(self, nbytes: int) -> None:
        """Copy the first bytes to the host, and wait for them and for all launches before."""


class Link(Protocol):
    """The connection of a device with those of other ranks."""

    @property
    def rank(self) -> int: ...

    @property
    def ranks(self) -> int: ...


class Device(Protocol):
    """A place that holds arrays and runs kernels.

    Attributes:
        name: "cpu", "cuda" or "emulated".
        kind: which kernels it runs: "cpu" or "cuda".
        threads: how many CPU threads work for it.
        link: its connection with the devices of other ranks; None: it works alone.
        row_invariant: whether a row's result is the same to the bit whatever rows are beside it.
        half_precision: whether kernels compute with 16-bit floats; else with float32 and integers.
        fixed_grids: whether a captured launch has a fixed number of threads, so that a step is
            captured in several sizes.
        unified_memory: whether its memory is the host's.
    """

    name: str
    kind: str
    row_invariant: bool
    half_precision: bool
    fixed_grids: bool
    unified_memory: bool

    @property
    def threads(self) -> int: ...

    @property
    def link(self) -> Link | None: ...

    def empty(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> DeviceArray:
        """A zeroed array in the device's memory."""

    def asarray(self, array: np.ndarray) -> DeviceArray:
        """The device's copy of a host array."""

    def write(self, to: Any, array: np.ndarray) -> None:
        """Copy a host array into a device array of its shape and dtype."""

    def read(self, array: Any) -> np.ndarray:
        """The contents of a device array on the host, after everything launched before.

        Valid until the next launch: it may be the array's own memory.
        """

    def staging_buffer(self, nbytes: int) -> StagingBuffer:
        """Bytes that are copied between host and device in one copy."""

    def memory_active(self) -> int:
        """Bytes of arrays alive."""

    def memory_free(self) -> int:
        """Bytes of memory that nobody uses."""

    def memory_total(self) -> int:
        """Bytes of memory."""

    def compile(self, launches: Sequence[Launch]) -> None:
        """Make the kernels ready; compiles what is not compiled yet."""

    def capture(self, launches: Sequence[Launch]) -> Graph:
        """A graph of the launches; compiles what is not compiled yet."""

    def eager(self, launches: Sequence[Launch]) -> Graph:
        """The same list, run one launch at a time."""

    def wait(self) -> None:
        """Wait until everything launched is done."""

    def progress(self) -> int:
        """A number that grows while something runs. From any thread."""

    def connect(self, group: Group) -> None:
        """Join the devices of a group's ranks. All ranks do so together, before they compile.

        Raises:
            ValueError: the ranks cannot work together.
            RankError: another rank raised.
        """

    def disconnect(self) -> None:
        """Leave the other ranks' devices; all ranks do so together. Idempotent."""

    def interrupt(self) -> None:
        """End all waiting for other ranks with an error, now and later. From any thread."""


Tick = Callable[[int, int], None]
"""A progress report: `tick(done, total)`."""
