"""Rewrite rules of a Program's graph before it is lowered, each exact to the bit.

A rule takes the output nodes of a graph and returns them rebuilt. `RULES` is their order; compiling
with `rules=()` runs the graph as recorded, which is how each rule is tested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core.recorder import elementwise
from nanocupy.core.recorder.casting import ASTYPE
from nanocupy.core.recorder.fused import ADD_RMS_NORM, GELU_MUL, RMS_NORM, SILU_MUL
from nanocupy.core.recorder.graph import (
    CONSTANT,
    ITEM,
    STATIC,
    Node,
    Outputs,
    item,
    rebuild,
    topological,
    users,
    width,
    with_inputs,
)
from nanocupy.core.recorder.packed import LINEAR, QUANTIZE
from nanocupy.core.recorder.paged import PAGED_ATTENTION
from nanocupy.core.recorder.rotary import ROPE
from nanocupy.core.recorder.shapes import SLICE, TAKE
from nanocupy.core.recorder.within_rows import within_rows
from nanocupy.device.protocols import Rows

Rule = Callable[[Outputs], Outputs]


# ---- common subexpressions


def _key(node: Node, inputs: tuple[Node, ...]) -> Any:
    if node.op is STATIC:
        return STATIC, id(node.attrs["buffer"]), node.shape
    if node.op is CONSTANT:
        value = node.attrs["value"]
        if not isinstance(value, np.ndarray) or value.size > 1:
            return CONSTANT, id(value)
        return CONSTANT, value.dtype, value.shape, value.tobytes()
    parts = tuple((k, v if _hashable(v) else id(v)) for k, v in sorted(node.attrs.items()))
    return node.op, inputs, parts


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def common_subexpressions(outputs: Outputs) -> Outputs:
    """Merge equal operations on the same inputs, except those with an effect."""
    known: dict[Any, Node] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        node = with_inputs(node, inputs)
        return node if node.op.effect else known.setdefault(_key(node, inputs), node)

    return rebuild(outputs, make)


# ---- gather rows before what is done row by row


def gather_rows_first(outputs: Outputs) -> Outputs:
    """take(f(x), rows) -> f(take(x, rows)) where f is done row by row and nobody wants its other
    rows.

    So a step computes the head, and all of the last layer that follows attention, for the rows that
    are sampled and no others.
    """
    for node in topological(outputs):
        if (
            node.op is TAKE
            and node.attrs["axis"] == 0
            and isinstance(node.inputs[0].shape[0], Rows)
        ):
            outputs = _gather(outputs, node)
    return outputs


def _gather(outputs: Outputs, take: Node) -> Outputs:
    rows, index = take.inputs[0].shape[0], take.inputs[1]
    readers = users(outputs)
    inside: set[Node] = set()
    for node in reversed(topological(outputs)):
        wanted = all(u is take or u in inside for u in readers[node])
        if (
            wanted
            and node.op.row_wise
            and node.shape
            and node.shape[0] is rows
            and node is not take
        ):
            inside.add(node)
    gathered: dict[Node, Node] = {}

    def gather(node: Node) -> Node:
        if not (node.shape and node.shape[0] is rows):
            return node
        if node not in gathered:
            gathered[node] = Node(TAKE, (node, index), {"axis": 0})
        return gathered[node]

    for node in topological(outputs):
        if node in inside:
            attrs = {k: _swap(v, rows, index.shape[0]) for k, v in node.attrs.items()}
            gathered[node] = Node(node.op, tuple(gather(n) for n in node.inputs), attrs)
    return rebuild(
        outputs,
        lambda node, inputs: gather(take.inputs[0]) if node is take else with_inputs(node, inputs),
    )


def _swap(value: Any, old: Any, new: Any) -> Any:
    """Return a shape with one number of rows in place of another."""
    return tuple(new if d is old else d for d in value) if type(value) is tuple else value


# ---- fusions


def one_linear(outputs: Outputs) -> Outputs:
    """Join linears of the same rows whose weights are neighbours in memory: qkv, gate and up.

    Not those that a collective reads: it wants rows without gaps.
    """
    readers = users(outputs)
    groups: dict[Node, list[Node]] = defaultdict(list)
    for node in topological(outputs):
        gathered = any(u is not None and u.op.effect for u in readers[node])
        if node.op is LINEAR and len(node.inputs) == 1 and not gathered:
            groups[node.inputs[0]].append(node)
    parts: dict[Node, tuple[Node, int]] = {}  # a linear -> (the joined one, its first output)
    for nodes in groups.values():
        _join(sorted(nodes, key=lambda n: n.attrs["weight"].start), parts)

    joined: dict[Node, Node] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node not in parts:
            return with_inputs(node, inputs)
        whole, start = parts[node]
        if whole not in joined:
            joined[whole] = Node(LINEAR, inputs, whole.attrs, whole.specs, whole.order)
        axis, stop = len(node.shape) - 1, start + node.attrs["weight"].n
        return Node(SLICE, (joined[whole],), {"axis": axis, "start": start, "stop": stop})

    return rebuild(outputs, make)


def _join(nodes: list[Node], parts: dict[Node, tuple[Node, int]]) -> None:
    """Find runs of neighbours in memory among linears of one input."""
    run: list[Node] = []
    for node in [*nodes, None]:
        if node and run and node.attrs["weight"].follows(run[-1].attrs["weight"]):
            run.append(node)
            continue
        if len(run) > 1:
            weight = run[0].attrs["weight"]
            for other in run[1:]:
                weight = weight.joined(other.attrs["weight"])
            whole = Node(
                LINEAR, run[0].inputs, {**run[0].attrs, "weight": weight}, order=run[0].order
            )
            for part in run:
                parts[part] = whole, part.attrs["weight"].start - weight.start
        run = [node] if node else []


def residual_and_norm(outputs: Outputs) -> Outputs:
    """Fuse x + r and the rms_norm of it into one pass over the row."""
    fused: dict[Node, Node] = {}
    for node in topological(outputs):
        if (
            node.op is RMS_NORM
            and _is_residual(node.inputs[0], node)
            and node.inputs[0] not in fused
        ):
            fused[node.inputs[0]] = node
    made: dict[Node, Node] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node in fused:
            norm = fused[node]
            made[norm] = Node(ADD_RMS_NORM, (*inputs, norm.inputs[1]), norm.attrs, order=node.order)
            return item(made[norm], 0)
        return item(made[node], 1) if node in made else with_inputs(node, inputs)

    return rebuild(outputs, make)


def _is_residual(node: Node, norm: Node) -> bool:
    weight_is_ready = norm.inputs[1].op in (STATIC, CONSTANT)
    equal = node.op is elementwise.ADD and node.inputs[0].shape == node.inputs[1].shape
    return equal and weight_is_ready and norm.inputs[1].shape[0] == width(node.shape)


def silu_times(outputs: Outputs) -> Outputs:
    """Fuse silu(gate) * up into one pass, and gelu(gate) * up."""
    readers, gated = users(outputs), {elementwise.SILU: SILU_MUL, elementwise.GELU: GELU_MUL}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.op is elementwise.MULTIPLY and node.inputs[0].shape == node.inputs[1].shape:
            for old, new, other in ((0, 0, 1), (1, 1, 0)):
                op = gated.get(node.inputs[old].op)
                if op and len(readers[node.inputs[old]]) == 1:
                    return Node(op, (inputs[new].inputs[0], inputs[other]), {}, order=node.order)
        return with_inputs(node, inputs)

    return rebuild(outputs, make)


def round_where_made(outputs: Outputs) -> Outputs:
    """Round a value in the operation that makes it, where all readers want it rounded alike."""
    readers = users(outputs)
    wanted: dict[Node, Node] = {}  # what makes a value -> the node that rounds it
    for node in topological(outputs):
        if node.op in (ASTYPE, QUANTIZE):
            source = _maker(node, readers)
            if source and _can_round(source, node):
                wanted[source] = node
    rounds = {node: source for source, node in wanted.items()}
    made: dict[Node, Node] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node in rounds:
            return made[rounds[node]]
        if node in wanted:
            attrs = {**node.attrs, **wanted[node].attrs}
            made[node] = Node(node.op, inputs, attrs, order=node.order)
            if node.op is not ADD_RMS_NORM:
                return made[node]
            whole, made[node] = made[node], item(made[node], 1)
            return whole
        if node.op is ITEM:
            return item(inputs[0], node.attrs["index"])
        return with_inputs(node, inputs)

    return rebuild(outputs, make)


def _maker(node: Node, readers: dict[Node, list[Node | None]]) -> Node | None:
    """The operation whose result only `node` reads. Linears read rows, whatever their shape."""
    source = node.inputs[0]
    by_rows = all(u is not None and u.op is LINEAR for u in readers[node])
    while len(readers[source]) == 1:
        if not (by_rows and source.op.alias):
            norm = source.op is ITEM and source.attrs["index"] == 1
            return source.inputs[0] if norm else source
        source = source.inputs[0]
    return None


def _can_round(source: Node, node: Node) -> bool:
    """Whether a kernel of `source` writes what `node` makes of its result."""
    if source.op is PAGED_ATTENTION:
        group = node.attrs["codes"].group if node.op is QUANTIZE else 1
        return bool(source.attrs["cache"].layout.rounds_rows(group))
    if source.op is RMS_NORM:  # not one head of several
        return bool(source.inputs[1].shape[0] == width(source.shape))
    return source.op in (ADD_RMS_NORM, SILU_MUL, GELU_MUL, TAKE)


def rope_and_write(outputs: Outputs) -> Outputs:
    """Fuse rope of q and k into the writing of the pages, where only attention reads them."""
    readers = users(outputs)

    def alone(node: Node) -> bool:
        return node.op is ROPE and len(readers[node]) == 1

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.op is PAGED_ATTENTION and alone(node.inputs[0]) and alone(node.inputs[1]):
            q, k = inputs[:2]
            if q.attrs == k.attrs and q.inputs[1] is k.inputs[1] is inputs[3]:
                turn = tuple(q.attrs[n] for n in ("frequency", "magnitude", "traditional"))
                sources = (q.inputs[0], k.inputs[0], *inputs[2:])
                return Node(node.op, sources, {**node.attrs, "rope": turn}, order=node.order)
        return with_inputs(node, inputs)

    return rebuild(outputs, make)


def elementwise_chains(outputs: Outputs) -> Outputs:
    """Fuse elementwise operations of one shape that read each other into one pass over memory."""
    if not any(n.op.steps and any(i.op.steps for i in n.inputs) for n in topological(outputs)):
        return outputs
    from nanocupy.core.recorder import chains

    return chains.fuse(outputs, least=2)


RULES: Sequence[Rule] = (
    common_subexpressions,
    within_rows,
    gather_rows_first,
    one_linear,
    residual_and_norm,
    silu_times,
    common_subexpressions,
    rope_and_write,
    round_where_made,
    elementwise_chains,
)
