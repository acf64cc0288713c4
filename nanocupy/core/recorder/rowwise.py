"""Launches of operations that work row by row: elementwise, gather, cast, softmax, sum.

An elementwise operation that is written as steps of a chain has one result, to the bit, on every
device. It is launched by a kernel of its own where it has one, else as a chain of one operation;
`recorder.chains`, which makes kernels of steps, is loaded when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from nanocupy.core.recorder.graph import CONSTANT, Node, Steps, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.device.protocols import Launch

Lower = Callable[[Lowering, Node], None]


# ---- elementwise: what is refused here runs as a chain (`kernel_or_chain`)


def binary(name: str) -> Lower:
    """An elementwise kernel of two inputs of one shape."""

    def lower(to: Lowering, node: Node) -> None:
        x, y = node.inputs
        widths = {width(n.shape) for n in (x, y, node)}
        if len(widths) > 1 or not x.shape or not y.shape or x.shape[0] != y.shape[0]:
            raise NotImplementedError(f"[{node.op.name}] broadcasting")
        _launch(to, node, partial(to.launches.elementwise.launch_binary, to.device, name))

    return lower


def unary(name: str) -> Lower:
    """An elementwise kernel of one input."""

    def lower(to: Lowering, node: Node) -> None:
        _launch(to, node, partial(to.launches.elementwise.launch_unary, to.device, name))

    return lower


def _launch(to: Lowering, node: Node, launch: Callable[..., Launch]) -> None:
    if node.dtype != np.float32:
        raise NotImplementedError(f"[{node.op.name}] of {node.dtype}")
    sources, out, size = to.inputs(node), to.of(node).view, width(node.shape)
    views = [x.view for x in sources]
    strides = dict(zip(("x_stride", "y_stride"), [x.stride for x in sources], strict=False))
    to.add(to.rows(node), lambda rows: launch(out, *views, rows, size, **strides))


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
        lambda rows: to.launches.elementwise.launch_scale(
            to.device, out, source.view, factor, rows, size, x_stride=source.stride
        ),
    )


# ---- whole rows


def take(to: Lowering, node: Node) -> None:
    """Launch a gather of rows."""
    if node.attrs["axis"] != 0:
        raise NotImplementedError("[take] along another axis than the first in a Program")
    source, index = node.inputs
    x = to.contiguous(source, to.of(source)).reshape(-1, width(source.shape))
    out, where = to.of(node).view, to.of(index).view
    codes = node.attrs.get("codes")
    to.add(
        to.rows(node),
        lambda rows: to.launches.take_rows.launch(to.device, out, x, where, rows, codes=codes),
    )


def cast(to: Lowering, node: Node) -> None:
    """f32 rows in another dtype, one that the device's kernel rounds to."""
    (source,) = node.inputs
    if node.dtype not in to.launches.cast.DTYPES or source.dtype != np.float32:
        raise NotImplementedError(f"[astype] {source.dtype} to {node.dtype} in a Program")
    x, out, size = to.of(source), to.of(node).view, width(node.shape)
    to.add(
        to.rows(node),
        lambda rows: to.launches.cast.launch(to.device, out, x.view, rows, size, x_stride=x.stride),
    )


# ---- inside rows, as routers do


def _vectors(node: Node, source: Node) -> int:
    """Return the number of vectors along the last axis in a row of the source.

    Raises:
        NotImplementedError: the node works along another axis, or on another dtype.
    """
    axis = node.attrs["axis"]
    last = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
    if last != len(source.shape) - 1 or last == 0 or source.dtype != np.float32:
        raise NotImplementedError(
            f"[{node.op.name}] of {source.dtype} {source.shape} along {axis} in a Program"
        )
    return width(source.shape) // int(source.shape[-1])


def along(name: str) -> Lower:
    """Return the lowering of softmax or argsort of vectors."""

    def lower(to: Lowering, node: Node) -> None:
        source = node.inputs[0]
        vectors, x, out = _vectors(node, source), to.of(source), to.of(node).view
        launch, size = getattr(to.launches.routing, f"launch_{name}"), int(source.shape[-1])
        to.add(
            to.rows(node),
            lambda rows: launch(to.device, out, x.view, rows, vectors, size, x_stride=x.stride),
        )

    return lower


def take_along(to: Lowering, node: Node) -> None:
    source, index = node.inputs
    vectors, out, x, wanted = _vectors(node, source), to.of(node), to.of(source), to.of(index)
    if index.shape[:-1] != source.shape[:-1] or index.dtype.itemsize != 4:
        raise NotImplementedError(f"[take_along_axis] {source.shape} at {index.shape} in a Program")
    sizes = int(source.shape[-1]), int(index.shape[-1])
    strides: dict[str, Any] = {"x_stride": x.stride, "index_stride": wanted.stride}
    to.add(
        to.rows(node),
        lambda rows: to.launches.routing.launch_take_along(
            to.device, out.view, x.view, wanted.view, rows, vectors, *sizes, **strides
        ),
    )


def total(to: Lowering, node: Node) -> None:
    """Launch the sum over one axis inside rows."""
    source, axes = node.inputs[0], node.attrs["axis"]
    if len(axes) != 1 or axes[0] == 0 or source.dtype != np.float32:
        raise NotImplementedError(
            f"[sum] of {source.dtype} {source.shape} over {axes} in a Program"
        )
    shape = [int(d) for d in source.shape]
    outer, count, inner = (
        int(np.prod(part, dtype=np.int64))
        for part in (shape[1 : axes[0]], shape[axes[0] : axes[0] + 1], shape[axes[0] + 1 :])
    )
    x, out = to.of(source), to.of(node).view
    to.add(
        to.rows(node),
        lambda rows: to.launches.routing.launch_sum(
            to.device, out, x.view, rows, outer, count, inner, x_stride=x.stride
        ),
    )


# ---- operations written as steps of a chain


def steps_of(name: str) -> Steps:
    """The steps of `kernels.chains.functions` with this name, loaded with their first use."""

    def steps(*values: Any) -> Any:
        from nanocupy.kernels.chains import functions

        return getattr(functions, name)(*values)

    return steps


def of_numbers(steps: Steps) -> Steps:
    """The steps with bools as numbers (see `specs.upcast`)."""
    return lambda *x: steps(*(v.cast("i8") if v.kind == "bool" else v for v in x))


def without_gaps(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """The NumPy form of an operation with steps: its result has no gaps, as that of a chain, since
    the bits of a sum depend on how its terms lie in memory."""
    return lambda *arrays, **attrs: np.asarray(function(*arrays, **attrs), order="C")


def by_chain(steps: Steps, otherwise: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The NumPy form of an operation that is rounded as its steps are, and in no other way.

    Args:
        otherwise: for dtypes that have no steps: float64.
    """

    def run(*arrays: np.ndarray) -> np.ndarray:
        from nanocupy.core.recorder import chains

        return chains.evaluate(steps, otherwise, arrays)

    return run


def kernel_or_chain(
    steps: Steps, kernel: Callable[[Lowering, Node], None] | None = None
) -> Callable[[Lowering, Node], None]:
    """How an operation is launched: by `kernel` where it takes these shapes and dtypes, else as a
    chain of one."""

    def lower(to: Lowering, node: Node) -> None:
        with suppress(NotImplementedError):
            if kernel and node.shape:
                kernel(to, node)
                return
        from nanocupy.core.recorder import chains

        chains.lower_one(to, node, steps)

    return lower
