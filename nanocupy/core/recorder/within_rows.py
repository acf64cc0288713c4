"""Two rules about single rows, and the operation that they make.

fold_constants   what depends on nothing that changes is computed once, when a Program is made
within_rows      elements that change places inside rows are moved by one table of columns
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.recorder import elementwise
from nanocupy.core.recorder.arrays import array, constant, static
from nanocupy.core.recorder.graph import CONSTANT, Node, Op, rebuild, width, with_inputs
from nanocupy.core.recorder.lowering import Lowering, Operand
from nanocupy.core.recorder.packed import PACKED, packed_linear
from nanocupy.core.recorder.shapes import TRANSPOSE
from nanocupy.device.protocols import Device, Rows
from nanocupy.kernels.linear import pack

PADDED = 32  # floats: kernels read a vector's last sixteen at once


# ---- what never changes


def fold_constants(outputs: list[Node], device: Device) -> list[Node]:
    """Compute what depends on constants alone: a layer's weight plus one, a table of a file.

    Exact: by the operations' NumPy forms, as an array without a Program has it.
    """

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        pure = node.op.numpy and not node.op.effect and len(node.specs) == 1
        if inputs and pure and all(_is_fixed(n) for n in inputs):
            assert node.op.numpy is not None
            values = [_value_of(device, n) for n in inputs]
            return _fixed_leaf(np.asarray(node.op.numpy(*values, **node.attrs)), device)
        if node.op is elementwise.ADD and node.dtype.kind == "i":
            return _without_added_zero(with_inputs(node, inputs))
        if node.op.name == "matmul" and _is_fixed(inputs[1]) and len(inputs[1].shape) == 2:
            return _matmul_as_linear(inputs[0], _value_of(device, inputs[1]), device)
        return with_inputs(node, inputs)

    return rebuild(outputs, make)


def _is_fixed(node: Node) -> bool:
    return node.op is CONSTANT or bool(node.attrs.get("fixed"))


def _value_of(device: Device, node: Node) -> np.ndarray | None:
    """Return the value of a constant or of a fixed device buffer; None for anything else."""
    if node.op is CONSTANT:
        return np.asarray(node.attrs["value"])
    if node.attrs.get("fixed"):
        return np.array(device.read(node.attrs["buffer"])).reshape(node.shape)
    return None


def _fixed_leaf(value: np.ndarray, device: Device) -> Node:
    """Return a value as a leaf: floats as a padded device buffer, anything else as a constant."""
    if not value.ndim or value.dtype != np.float32:
        return constant(value)
    buffer = device.asarray(np.pad(value.reshape(-1), (0, -value.size % PADDED)))
    return static(buffer[: value.size].reshape(value.shape), fixed=True).node


def _without_added_zero(node: Node) -> Node:
    """Return x for x + 0 of ints."""
    for zero, other in (node.inputs, node.inputs[::-1]):
        if zero.op is CONSTANT and not zero.attrs["value"].any() and other.shape == node.shape:
            return other
    return node


def _matmul_as_linear(x: Node, matrix: np.ndarray | None, device: Device) -> Node:
    """Return x times a matrix that no layer has packed as a linear, in float32."""
    assert matrix is not None
    (weight,) = pack(device, [np.ascontiguousarray(matrix.T, np.float32)], "f32")
    return packed_linear(array(x), weight).node


# ---- inside rows


def within_rows(outputs: list[Node]) -> list[Node]:
    """Slices and transposes that are not one piece of a row, concatenation and the like: COLUMNS.
    x @ w.T of a packed weight is a linear; part of a row times numbers is the row times numbers."""

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        rule = _RULES.get(node.op.name, _as_columns if node.op.moves else None)
        made = with_inputs(node, inputs)
        return rule(made) if rule else made

    return rebuild(outputs, make)


def _as_columns(node: Node) -> Node:
    rows = node.shape[0] if node.shape else None
    known_rows = all(n.shape and n.shape[0] is rows for n in node.inputs)
    if not isinstance(rows, Rows) or not known_rows or node.dtype.itemsize != 4:
        return node
    if node.op.alias:
        try:
            node.op.alias(node, Operand(np.empty(0), 0, width(node.inputs[0].shape)))
        except NotImplementedError:
            pass  # it copies
        else:
            return node
    widths = [width(n.shape) for n in node.inputs]
    starts = np.cumsum([0, *widths])
    places = [
        np.arange(start, stop).reshape(1, *map(int, n.shape[1:]))
        for start, stop, n in zip(starts, starts[1:], node.inputs, strict=False)
    ]
    assert node.op.numpy is not None
    found = np.asarray(node.op.numpy(*places, **_of_one_row(node.attrs)))
    if found.shape != (1, *node.shape[1:]):
        return node
    source = found.reshape(-1)
    owner = np.searchsorted(starts, source, side="right") - 1
    tables = [
        (source[owner == i] - starts[i], np.flatnonzero(owner == i)) for i in range(len(widths))
    ]
    attrs = {"tables": tuple(tables), "shape": node.shape}
    return Node(COLUMNS, node.inputs, attrs, node.specs, node.order)


def _of_one_row(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return attributes with one row in place of symbolic rows."""

    def one(value: Any) -> Any:
        if type(value) is not tuple:
            return value
        return tuple(1 if isinstance(d, Rows) else d for d in value)

    return {name: one(value) for name, value in attrs.items()}


def _take_as_columns(node: Node) -> Node:
    """Return a take of constant columns as COLUMNS."""
    x, index = node.inputs
    rows = node.shape[0] if node.shape else None
    inside = isinstance(rows, Rows) and x.shape[0] is rows and node.attrs["axis"] > 0
    if not inside or index.op is not CONSTANT or node.dtype.itemsize != 4:
        return node
    places = np.arange(width(x.shape)).reshape(1, *map(int, x.shape[1:]))
    source = np.take(places, index.attrs["value"], node.attrs["axis"]).reshape(-1)
    attrs = {"tables": ((source, np.arange(len(source))),), "shape": node.shape}
    return Node(COLUMNS, (x,), attrs, node.specs, node.order)


def _packed_matmul(node: Node) -> Node:
    x, turned = node.inputs
    if turned.op is TRANSPOSE and turned.inputs[0].op is PACKED and turned.attrs["axes"] == (1, 0):
        return packed_linear(array(x), turned.inputs[0].attrs["weight"]).node
    return node


def _packed_gather_mm(node: Node) -> Node:
    x, turned, places = node.inputs
    if (
        turned.op is TRANSPOSE
        and turned.inputs[0].op is PACKED
        and turned.attrs["axes"] == (0, 2, 1)
    ):
        from nanocupy.core.recorder.experts import switch_linear

        weights = turned.inputs[0].attrs["weights"]
        return switch_linear(array(x), array(places), weights, node.shape).node
    return node


def _scatter_as_elementwise(node: Node) -> Node:
    """Return x.at[part].multiply(number) as x times ones and numbers; add likewise."""
    x, value, *arrays = node.inputs
    how = {np.multiply: (elementwise.MULTIPLY, 1), np.add: (elementwise.ADD, 0)}.get(
        node.attrs["how"]
    )
    if how is None or arrays or value.op is not CONSTANT or x.dtype != np.float32:
        return node
    blank = np.full((1, *map(int, x.shape[1:])), how[1], np.float32)
    assert node.op.numpy is not None
    vector = node.op.numpy(blank, value.attrs["value"], **node.attrs)
    return Node(how[0], (x, constant(vector)), {}, node.specs, node.order)


def _lower_columns(to: Lowering, node: Node) -> None:
    out = to.of(node)
    for source, (begin, end) in zip(to.inputs(node), node.attrs["tables"], strict=True):
        if len(begin):
            _launch_columns(to, node, out, source, begin, end)


def _launch_columns(
    to: Lowering, node: Node, out: Operand, source: Operand, begin: np.ndarray, end: np.ndarray
) -> None:
    tables = tuple(to.constant(np.asarray(t, np.int32)) for t in (begin, end))
    strides = {"x_stride": source.stride, "out_stride": out.stride}
    to.add(
        to.rows(node),
        lambda rows: to.launches.columns.launch(
            to.device, out.view, source.view, tables[0], tables[1], rows, **strides
        ),
    )


COLUMNS = Op(
    "columns",
    lambda x, *_, tables, shape: (shape, x[1]),
    None,
    _lower_columns,
    row_wise=True,
)
# By name: operations of the wide surface are known only where a graph has them.
_RULES = {
    "matmul": _packed_matmul,
    "gather_mm": _packed_gather_mm,
    "setitem": _scatter_as_elementwise,
    "take": _take_as_columns,
}
