"""What every device has: memory, launches, graphs.

A device runs kernels; a launch is a kernel with its arguments; a list of launches is captured into
a graph and replayed with no Python between kernels. What changes from step to step is the contents
of static buffers, never the launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Launch(NamedTuple):
    """One kernel with its arguments: device arrays (passed by address) and plain integers.

    Floats travel as one-element arrays, so that no device guesses their width.
    """

    kernel: Any
    args: tuple[Any, ...]


class KernelError(RuntimeError):
    """A kernel returned an error code, or could not be launched."""


class Graph(Protocol):
    """A captured list of launches."""

    launches: Sequence[Launch]

    def run(self) -> None:
        """Run every launch in order. Raises KernelError naming the kernel that failed."""


class Device(Protocol):
    """A place that holds arrays and runs kernels."""

    name: str

    def empty(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> Any:
        """A zeroed array of the device's."""

    def asarray(self, array: np.ndarray) -> Any:
        """The device's copy of a host array."""

    def capture(self, launches: Sequence[Launch]) -> Graph:
        """A graph of the launches; compiles what is not compiled yet."""

    def eager(self, launches: Sequence[Launch]) -> Graph:
        """The same list, run one launch at a time."""

    def memory_active(self) -> int:
        """Bytes of arrays alive."""


Tick = Callable[[int, int], None]
