"""How operations that work row by row are launched: elementwise, gather, cast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ml_dtypes import bfloat16

from nanocupy.core.graph import CONSTANT, Node, width
from nanocupy.core.lowering import Lowering
from nanocupy.kernels import cast as cast_kernel
from nanocupy.kernels import elementwise, take_rows

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


def product(to: Lowering, node: Node) -> None:
    """Two inputs of one shape, or one times a number."""
    for x, y in (node.inputs, node.inputs[::-1]):
        if y.op is CONSTANT and y.shape == () and x.dtype == node.dtype == np.float32:
            _scale(to, node, x, float(y.attrs["value"]))
            return
    binary("mul")(to, node)


def _scale(to: Lowering, node: Node, x: Node, factor: float) -> None:
    source, out, size = to.of(x), to.of(node).view, width(node.shape)
    to.add(
        to.rows(node),
        lambda rows: elementwise.launch_scale(
            to.device, out, source.view, factor, rows, size, x_stride=source.stride
        ),
    )


def unary(name: str) -> Lower:
    """An elementwise kernel of one input."""
    return lambda to, node: _elementwise(name, to, node, ("x",))


def _elementwise(name: str, to: Lowering, node: Node, inputs: tuple[str, ...]) -> None:
    if node.dtype != np.float32:
        raise NotImplementedError(f"[{node.op.name}] of {node.dtype} in a Program")
    places = to.inputs(node)
    strides = {f"{i}_stride": p.stride for i, p in zip(inputs, places, strict=True)}
    views = [to.of(node).view, *(p.view for p in places)]
    launch, size = getattr(elementwise, f"launch_{name}"), width(node.shape)
    to.add(to.rows(node), lambda rows: launch(to.device, *views, rows, size, **strides))


def take(to: Lowering, node: Node) -> None:
    """Gather rows."""
    if node.attrs["axis"] != 0:
        raise NotImplementedError("[take] along another axis than the first in a Program")
    source, index = node.inputs
    x = to.contiguous(source, to.of(source)).reshape(-1, width(source.shape))
    out, where = to.of(node).view, to.of(index).view
    codes = node.attrs.get("codes")
    to.add(
        to.rows(node), lambda rows: take_rows.launch(to.device, out, x, where, rows, codes=codes)
    )


def cast(to: Lowering, node: Node) -> None:
    """f32 rows in another dtype: bf16, or on CUDA also f16."""
    (source,) = node.inputs
    known = to.device.kind == "cuda" or node.dtype == bfloat16
    if not known or source.dtype != np.float32:
        raise NotImplementedError(f"[astype] {source.dtype} to {node.dtype} in a Program")
    x, out, size = to.of(source), to.of(node).view, width(node.shape)
    to.add(
        to.rows(node),
        lambda rows: cast_kernel.launch(to.device, out, x.view, rows, size, x_stride=x.stride),
    )
