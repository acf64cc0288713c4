"""From nodes to kernel launches: where values lie in memory, and how each operation is launched.

In a Program every value is a number of rows, each `width` elements long at a fixed stride. A
reshape or a slice inside the row, or a transpose that only moves dimensions of one, is the same
memory seen differently and launches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nanocupy.core.graph import Node, Rows, Shape, width
from nanocupy.device.base import Launch
from nanocupy.kernels import elementwise, take_rows


@dataclass(frozen=True)
class Operand:
    """Rows in a device buffer: row i starts at element offset + i * stride."""

    buffer: Any
    offset: int
    stride: int

    @property
    def view(self) -> Any:
        """The buffer from row 0 on, flat."""
        return self.buffer.reshape(-1)[self.offset :]

    @property
    def stride_bytes(self) -> int:
        return self.stride * int(self.buffer.dtype.itemsize)


@dataclass
class Lowering:
    """The state of lowering one Program."""

    device: Any
    launches: list[Launch] = field(default_factory=list)
    places: dict[tuple[Node, int], Operand] = field(default_factory=dict)
    _shared: dict[Any, Any] = field(default_factory=dict)

    def of(self, node: Node, index: int = 0) -> Operand:
        return self.places[node, index]

    def inputs(self, node: Node) -> list[Operand]:
        return [self.of(n) for n in node.inputs]

    def rows(self, node: Node) -> Any:
        """The device's count of the rows in use."""
        dim = node.shape[0]
        return dim.count if isinstance(dim, Rows) else self.constant(np.array([int(dim)]))

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """A device array that launches of one kind share, made once: a table, working memory."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def constant(self, value: np.ndarray) -> Any:
        """The device's copy of a host array, made once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        return self.shared(key, lambda: self.device.asarray(value))

    def add(self, launch: Launch) -> None:
        self.launches.append(launch)

    def contiguous(self, node: Node, operand: Operand) -> Any:
        """The operand's buffer, which must have no gaps between rows."""
        if operand.stride != width(node.shape):
            raise NotImplementedError(f"[{node.op.name}] rows with gaps between them in a Program")
        return operand.view


Lower = Callable[[Lowering, Node], None]


def binary(name: str) -> Lower:
    """An elementwise kernel of two inputs of one shape."""

    def lower(to: Lowering, node: Node) -> None:
        x, y = node.inputs
        widths = {width(n.shape) for n in (x, y, node)}
        if len(widths) > 1 or len(x.shape) == 0 or x.shape[0] != y.shape[0]:
            raise NotImplementedError(
                f"[{node.op.name}] broadcasting {x.shape} with {y.shape} in a Program"
            )
        _elementwise(name, to, node, ("x", "y"))

    return lower


def unary(name: str) -> Lower:
    """An elementwise kernel of one input."""
    return lambda to, node: _elementwise(name, to, node, ("x",))


def _elementwise(name: str, to: Lowering, node: Node, inputs: tuple[str, ...]) -> None:
    if node.dtype != np.float32:
        raise NotImplementedError(f"[{node.op.name}] of {node.dtype} in a Program")
    places = to.inputs(node)
    strides = {f"{i}_stride": p.stride for i, p in zip(inputs, places, strict=True)}
    views = [to.of(node).view, *(p.view for p in places)]
    launch = getattr(elementwise, f"launch_{name}")
    to.add(launch(*views, to.rows(node), width(node.shape), **strides))


def take(to: Lowering, node: Node) -> None:
    """Gather rows."""
    if node.attrs["axis"] != 0:
        raise NotImplementedError("[take] along another axis than the first in a Program")
    source, index = node.inputs
    x = to.contiguous(source, to.of(source)).reshape(-1, width(source.shape))
    to.add(take_rows.launch(to.of(node).view, x, to.of(index).view, to.rows(node)))


# ---- the same memory, seen differently


def reshape(node: Node, operand: Operand) -> Operand:
    """Inside the row nothing moves; across rows only where there are no gaps."""
    old = node.inputs[0].shape
    if old[0] == node.shape[0] and isinstance(old[0], Rows) == isinstance(node.shape[0], Rows):
        return operand
    if operand.stride != width(old) or any(isinstance(d, Rows) for d in (*old, *node.shape)):
        raise NotImplementedError(f"[reshape] {old} to {node.shape} moves rows in a Program")
    return replace(operand, stride=width(node.shape))


def transpose(node: Node, operand: Operand) -> Operand:
    """Only dimensions of one may change places, and rows stay first."""
    old: Shape = node.inputs[0].shape
    axes = node.attrs["axes"]
    moved = [a for a in axes if old[a] != 1 or isinstance(old[a], Rows)]
    if moved != sorted(moved) or axes[0] != 0:
        raise NotImplementedError(f"[transpose] of {old} by {axes} copies in a Program")
    return operand


def slice_axis(node: Node, operand: Operand) -> Operand:
    """A slice that is one piece of every row."""
    shape, axis = node.inputs[0].shape, node.attrs["axis"]
    if axis == 0 or any(d != 1 for d in shape[1:axis]):
        raise NotImplementedError(f"[slice] axis {axis} of {shape} is not one piece of a row")
    inner = int(np.prod([int(d) for d in shape[axis + 1 :]], dtype=np.int64))
    return replace(operand, offset=operand.offset + node.attrs["start"] * inner)
