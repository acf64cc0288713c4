"""Collectives of a group of processes, which all of them record in the same order.

In a group of one they change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.graph import Node, Op, Spec, size, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.core.recorder.public import public
from nanocupy.distributed import Group, world
from nanocupy.kernels.collective import link_of


def _operands(to: Lowering, node: Node) -> tuple[Any, Any]:
    """The input and the output of a collective that the device can take part in."""
    (source,), group = node.inputs, node.attrs["group"]
    if node.dtype not in to.launches.collective.DTYPES or not node.shape:
        raise NotImplementedError(f"[{node.op.name}] of {node.dtype} {node.shape} in a Program")
    link = link_of(to.device)
    if (link.rank, link.ranks) != (group.rank(), group.size()):
        raise ValueError(
            f"[{node.op.name}] in a group as rank {group.rank()} of {group.size()}: the device is "
            f"rank {link.rank} of {link.ranks}"
        )
    return to.contiguous(source, to.of(source)), to.of(node).view


def _lower_reduce(how: str) -> Callable[[Lowering, Node], None]:
    def lower(to: Lowering, node: Node) -> None:
        x, out = _operands(to, node)
        each, launch = width(node.shape), to.launches.collective.launch_all_reduce
        to.add(to.rows(node), lambda rows: launch(to.device, out, x, rows, each, how))

    return lower


def _lower_gather(to: Lowering, node: Node) -> None:
    (x, out), widths = _operands(to, node), node.attrs["widths"]
    if width(node.shape) != node.shape[-1]:
        raise NotImplementedError(f"[{node.op.name}] to {node.shape} in a Program")
    kernel, most = to.launches.collective, (size(node.shape), node.dtype)
    key = ("gather_columns", *most)
    scratch = to.shared(key, lambda: kernel.gather_scratch(to.device, *most))
    launch = kernel.launch_gather_columns
    to.add(to.rows(node), lambda rows: launch(to.device, out, x, rows, widths, scratch))


# ---- operations. All have an effect: each is done as often as recorded, on all ranks


def _gathered(spec: Spec, *, group: Group) -> Spec:
    shape, dtype = spec
    return (group.size() * (int(shape[0]) if shape else 1), *shape[1:]), dtype


def _all_gather(x: np.ndarray, *, group: Group) -> np.ndarray:
    shape, _ = _gathered((x.shape, x.dtype), group=group)
    return np.concatenate(group.all_gather(x.reshape(-1))).reshape(shape)


def _gather_columns(x: np.ndarray, *, group: Group, widths: tuple[int, ...]) -> np.ndarray:
    parts = group.all_gather(np.moveaxis(x, -1, 0).reshape(-1))
    columns = np.concatenate(parts).reshape(sum(widths), *x.shape[:-1])
    return np.moveaxis(columns, 0, -1)


def _reduction(how: str) -> Op:
    """ "sum" or "max" over the ranks: `Group.all_sum`, `Group.all_max`."""
    name = f"all_{how}"
    return Op(
        name,
        lambda spec, *, group: spec,
        lambda x, *, group: getattr(group, name)(x),
        _lower_reduce(how),
        row_wise=True,
        effect=True,
    )


ALL_SUM, ALL_MAX = _reduction("sum"), _reduction("max")
ALL_GATHER = Op(
    "all_gather",
    _gathered,
    _all_gather,
    effect=True,
)
GATHER_COLUMNS = Op(
    "gather_columns",
    lambda spec, *, group, widths: ((*spec[0][:-1], sum(widths)), spec[1]),
    _gather_columns,
    _lower_gather,
    row_wise=True,
    effect=True,
)


def _record(op: Op, x: Any, group: Group | None, **attrs: Any) -> array:
    group = world() if group is None else group
    return as_array(x) if group.size() == 1 else record(op, x, group=group, **attrs)


@public
def all_sum(x: Any, *, group: Group | None = None) -> array:
    """The sum of x over the group, added in the order of ranks. Default: the group of all."""
    return _record(ALL_SUM, x, group)


@public
def all_max(x: Any, *, group: Group | None = None) -> array:
    """The largest of x over the group, element by element."""
    return _record(ALL_MAX, x, group)


@public
def all_gather(x: Any, *, group: Group | None = None) -> array:
    """The group's arrays, of one shape, one after the other along the first axis."""
    return _record(ALL_GATHER, x, group)


def gather_columns(x: Any, widths: Sequence[int], *, group: Group | None = None) -> array:
    """The group's arrays side by side: x [..., widths[rank]] -> [..., sum(widths)].

    Raises:
        ValueError: x is not as wide as `widths` says of this rank.
    """
    group, x = world() if group is None else group, as_array(x)
    if len(widths) != group.size() or x.shape[-1:] != (widths[group.rank()],):
        raise ValueError(
            f"[gather_columns] x of shape {x.shape} and widths {tuple(widths)} on rank "
            f"{group.rank()} of {group.size()}"
        )
    return _record(GATHER_COLUMNS, x, group, widths=tuple(map(int, widths)))
