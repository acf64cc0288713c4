"""From nodes to kernel launches: where values lie in memory, and how each operation is launched.

In a Program every value is a number of rows, each `width` elements long at a fixed stride. A
reshape or a slice inside the row, or a transpose that only moves dimensions of one, is the same
memory seen differently and launches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from nanocupy.core.recorder.graph import Node, Shape, width
from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels import Launches, launches_of
from nanocupy.kernels.kernel import MakeLaunches


@dataclass(frozen=True)
class Operand:
    """Rows in a device buffer: row i starts at element offset + i * stride."""

    buffer: DeviceArray
    offset: int
    stride: int

    @property
    def view(self) -> DeviceArray:
        """The buffer from row 0 on, flat."""
        return self.buffer.reshape(-1)[self.offset :]

    @property
    def stride_bytes(self) -> int:
        return self.stride * int(self.buffer.dtype.itemsize)


Sizes = Sequence[tuple[Rows, int]]  # capacities to use in place of the most there can be


class Sized(NamedTuple):
    """Launches whose size depends on the capacity of `rows`: `make` is called once for each."""

    rows: Rows
    make: MakeLaunches

    def launches(self, sizes: Sizes = ()) -> list[Launch]:
        """The launches where `rows` has the capacity that `sizes` says; none if that is zero."""
        rows = self.rows
        for known, capacity in sizes:
            if known is rows:
                rows = Rows(capacity, rows.count)
        if not rows:
            return []
        made = self.make(rows)
        return [made] if isinstance(made, Launch) else list(made)


@dataclass
class Lowering:
    """A Program while it is lowered: the places of its values, and its launches so far."""

    device: Device
    sized: list[Sized] = field(default_factory=list)
    places: dict[tuple[Node, int], Operand] = field(default_factory=dict)
    _shared: dict[Any, Any] = field(default_factory=dict)

    @property
    def launches(self) -> Launches:
        """The launch functions of this kind of device: `to.launches.rms_norm.launch(...)`."""
        return launches_of(self.device.kind)

    def of(self, node: Node, index: int = 0) -> Operand:
        return self.places[node, index]

    def inputs(self, node: Node) -> list[Operand]:
        return [self.of(n) for n in node.inputs]

    def rows(self, node: Node) -> Rows:
        """The rows of a node: the most there can be, and the device's count of those in use."""
        dim = node.shape[0]
        return dim if isinstance(dim, Rows) else Rows(dim, self.constant(np.array([int(dim)])))

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """A device array that launches of one kind share, made once: a table, working memory."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def constant(self, value: np.ndarray) -> DeviceArray:
        """The device's copy of a host array, made once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        return self.shared(key, lambda: self.device.asarray(value))

    def add(self, rows: Rows, make: MakeLaunches) -> None:
        """Append what `make(rows)` launches; it is made anew for every capacity of the rows."""
        self.sized.append(Sized(rows, make))

    def close(self) -> None:
        """Release all buffers."""
        for held in (self.sized, self.places, self._shared):
            held.clear()

    def contiguous(self, node: Node, operand: Operand) -> DeviceArray:
        """The operand's buffer, which must have no gaps between rows."""
        if operand.stride != width(node.shape):
            raise NotImplementedError(f"[{node.op.name}] rows with gaps between them in a Program")
        return operand.view


# ---- the same memory, seen differently


def reshape(node: Node, operand: Operand) -> Operand:
    """Inside the row nothing moves; across rows only where there are no gaps."""
    old = node.inputs[0].shape
    rows, again = ([(d, isinstance(d, Rows)) for d in s[:1]] for s in (old, node.shape))
    if rows == again:
        return operand
    if operand.stride != width(old) or any(isinstance(d, Rows) for d in (*old, *node.shape)):
        raise NotImplementedError(f"[reshape] {old} to {node.shape} moves rows in a Program")
    return replace(operand, stride=width(node.shape))


def transpose(node: Node, operand: Operand) -> Operand:
    """Only dimensions of one may change places, and rows stay first."""
    old: Shape = node.inputs[0].shape
    axes = node.attrs["axes"]
    moved = [a for a in axes if old[a] != 1 or isinstance(old[a], Rows)]
    if moved != sorted(moved) or (axes and axes[0] != 0):
        raise NotImplementedError(f"[transpose] of {old} by {axes} copies in a Program")
    return operand


def slice_axis(node: Node, operand: Operand) -> Operand:
    """A slice that is one piece of every row."""
    shape, axis = node.inputs[0].shape, node.attrs["axis"]
    if axis == 0 or any(d != 1 for d in shape[1:axis]):
        raise NotImplementedError(f"[slice] axis {axis} of {shape} is not one piece of a row")
    inner = int(np.prod([int(d) for d in shape[axis + 1 :]], dtype=np.int64))
    return replace(operand, offset=operand.offset + node.attrs["start"] * inner)
