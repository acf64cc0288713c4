"""Elementwise operations joined into chains: one pass over memory for many nodes.

`fuse` is a rule like those of `rules`: it replaces groups of elementwise nodes by one FUSED node
each, which runs as a generated kernel (`kernels.chains`), on arrays and in a Program alike.
Every value inside is rounded to the dtype that it was recorded with, so a chain has the bits of
its operations one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from nanocupy.core.recorder.graph import (
    Node,
    Op,
    Shape,
    Spec,
    Steps,
    item,
    topological,
    width,
    with_inputs,
)
from nanocupy.core.recorder.heap import empty
from nanocupy.core.recorder.lowering import Lowering, Operand
from nanocupy.core.recorder.specs import broadcast
from nanocupy.device.chain import Chain
from nanocupy.device.protocols import Rows
from nanocupy.dtypes import DTYPES, KINDS
from nanocupy.kernels.chains import layout
from nanocupy.kernels.chains.cpu import HostChain
from nanocupy.kernels.chains.functions import Build, Unfit

MOST_OPERANDS = 16  # of a chain, besides single numbers
MOST_NODES = 64


# ---- one operation


@cache
def single(steps: Steps, kinds: tuple[str, ...], out: str) -> HostChain | None:
    """Return the chain of one operation; None if it has no steps for these kinds."""
    build = Build(kinds)
    try:
        value = steps(*(build.load(i) for i in range(len(kinds)))).cast(out)
    except Unfit:
        return None
    return HostChain(build.chain([(value, out)]), empty)


def evaluate(
    steps: Steps, otherwise: Callable[..., np.ndarray], arrays: tuple[Any, ...]
) -> np.ndarray:
    """The steps on NumPy arrays; `otherwise` where their dtypes have none."""
    kinds = tuple([KINDS[x.dtype] for x in arrays])
    chain = single(steps, kinds, kinds[0])
    if chain is None:
        return otherwise(*arrays)
    if len(arrays) > 1:
        arrays = np.broadcast_arrays(*arrays)
    # Without gaps there is one kernel, and not one for every layout.
    return chain(*[np.ascontiguousarray(x) for x in arrays])[0].reshape(arrays[0].shape)


def lower_one(to: Lowering, node: Node, steps: Steps) -> None:
    """Launch one operation as a chain."""
    kinds = tuple([KINDS[n.dtype] for n in node.inputs])
    one = single(steps, kinds, KINDS[node.dtype])
    if one is None:
        known = f"{', '.join(kinds)} to {KINDS[node.dtype]}"
        raise NotImplementedError(f"[{node.op.name}] {known} in a Program")
    launch(to, node, one.chain)


# ---- chains as nodes


def _infer(*specs: Spec, run: HostChain, names: str) -> list[Spec]:
    shape = broadcast(*(s for s, _ in specs))
    return [(shape, DTYPES[kind]) for _, kind in run.chain.outputs]


def _numpy(*arrays: np.ndarray, run: HostChain, names: str, out: Any = ()) -> Any:
    outs = run(*arrays, out=out)
    return outs[0] if len(outs) == 1 else outs


def launch(to: Lowering, node: Node, chain: Chain) -> None:
    """Launch a chain of the node's inputs for its outputs."""
    shape = node.shape or (1,)
    walks = [_walk(to.of(n), n, node.shape) for n in node.inputs]
    how = layout(shape, walks, chain.inputs)
    outs = [to.of(node, i).view for i in range(len(node.specs))]
    ins = [place.view for place in to.inputs(node)]
    rows = to.rows(node) if node.shape else Rows(1, to.constant(np.array([1])))
    to.add(rows, lambda rows: to.launches.chains.launch(to.device, chain, outs, ins, rows, how))


def _walk(place: Operand, source: Node, to: tuple[int, ...]) -> tuple[int, ...]:
    """Bytes from one element to the next, along every dimension of the result."""
    shape, size = source.shape, source.dtype.itemsize
    inner = [width(shape[i:]) for i in range(1, len(shape))]
    own = [place.stride, *inner] if shape else []
    steps = [
        0 if d == 1 and not isinstance(d, Rows) else s * size
        for d, s in zip(shape, own, strict=True)
    ]
    return tuple([0] * (max(len(to), 1) - len(shape)) + steps)


FUSED = Op(
    "fused",
    _infer,
    _numpy,
    lambda to, node: launch(to, node, node.attrs["run"].chain),
    row_wise=True,
)


# ---- which nodes


class Group:
    """Nodes of one shape that are fused, users first; `bits` has a bit for each."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.bits = shape, 0
        self.nodes: dict[Node, None] = {}

    def add(self, node: Node, bit: int) -> None:
        self.nodes[node] = None
        self.bits |= bit

    def fits(self, node: Node) -> bool:
        """Whether the kernel stays within `MOST_OPERANDS` with this node."""
        inside = {*self.nodes, node}
        reads = {n for member in inside for n in member.inputs if n not in inside and n.shape}
        return len(reads) < MOST_OPERANDS and len(inside) <= MOST_NODES

    def leaves(self) -> list[Node]:
        """Return the nodes that the group reads."""
        found = (n for m in reversed(self.nodes) for n in m.inputs if n not in self.nodes)
        return list(dict.fromkeys(found))


def fuse(outputs: Sequence[Node], least: int = 1) -> list[Node]:
    """Replace groups of elementwise nodes of one shape that read each other by one node each.

    Args:
        least: nodes that a chain has; fewer stay what they are.
    """
    nodes = topological(outputs)
    group_of = {n: g for n, g in _groups(nodes).items() if len(g.nodes) >= least}
    wanted = {*outputs}
    for node in nodes:
        wanted |= {n for n in node.inputs if group_of.get(n) is not group_of.get(node, node)}
    made: dict[Node, Node] = {}
    for unit in _units(nodes, group_of):
        if isinstance(unit, Group):
            made |= _merge(unit, made, wanted)
        else:
            inputs = tuple([made[n] for n in unit.inputs])
            made[unit] = with_inputs(unit, inputs)
    return [made[n] for n in outputs]


def _fusable(node: Node) -> bool:
    if node.op.steps is None or not all(n.dtype in KINDS for n in (node, *node.inputs)):
        return False
    kinds = tuple([KINDS[n.dtype] for n in node.inputs])
    return single(node.op.steps, kinds, KINDS[node.dtype]) is not None


def _groups(nodes: Sequence[Node]) -> dict[Node, Group]:
    """From the outputs backwards: a node joins a group that reads it, unless something outside
    the group has to run between the two."""
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        for source in dict.fromkeys(node.inputs):
            users.setdefault(source, []).append(node)
    bit = {node: 1 << i for i, node in enumerate(nodes)}
    after: dict[Node, int] = {}  # the bits of everything that depends on a node
    group_of: dict[Node, Group] = {}
    for node in reversed(nodes):
        mine = users.get(node, [])
        after[node] = 0
        for user in mine:
            after[node] |= bit[user] | after[user]
        if not _fusable(node):
            continue
        for group in dict.fromkeys(group_of[u] for u in mine if u in group_of):
            between = any(after[u] & group.bits for u in mine if u not in group.nodes)
            if not between and _same_shape(node.shape, group.shape) and group.fits(node):
                group_of[node] = group
                break
        else:
            group_of[node] = Group(node.shape)
        group_of[node].add(node, bit[node])
    return group_of


def _same_shape(x: Shape, y: Shape) -> bool:
    """The same shape, also where rows are symbolic."""
    symbolic = [
        (a, b) for a, b in zip(x, y, strict=False) if isinstance(a, Rows) or isinstance(b, Rows)
    ]
    return x == y and all(a is b for a, b in symbolic)


def _units(nodes: Sequence[Node], group_of: dict[Node, Group]) -> Iterator[Node | Group]:
    """Nodes and groups, each after what it reads."""
    done: set[Node | Group] = set()
    for node in nodes:
        stack: list[Node | Group] = [group_of.get(node, node)]
        while stack:
            unit = stack[-1]
            reads = unit.leaves() if isinstance(unit, Group) else unit.inputs
            waiting = [u for u in (group_of.get(n, n) for n in reads) if u not in done]
            if unit in done or not waiting:
                stack.pop()
                if unit not in done:
                    done.add(unit)
                    yield unit
            else:
                stack += waiting


def _merge(group: Group, made: dict[Node, Node], wanted: set[Node]) -> dict[Node, Node]:
    """Return the group as one node, by its results that are used outside."""
    leaves = group.leaves()
    sources = [made[n] for n in leaves]
    build = Build([KINDS[n.dtype] for n in leaves])
    value = {n: build.load(i) for i, n in enumerate(leaves)}
    members = list(reversed(group.nodes))
    for node in members:
        assert node.op.steps
        value[node] = node.op.steps(*(value[n] for n in node.inputs)).cast(KINDS[node.dtype])
    results = [n for n in members if n in wanted]
    chain = build.chain([(value[n], KINDS[n.dtype]) for n in results])
    attrs = {"run": host(chain), "names": " ".join(n.op.name for n in members)}
    specs = [(group.shape, n.dtype) for n in results]
    fused = Node(FUSED, tuple(sources), attrs, specs, members[-1].order)
    if len(results) == 1:
        return {results[0]: fused}
    return {n: item(fused, i) for i, n in enumerate(results)}


_hosts: WeakValueDictionary[str, HostChain] = WeakValueDictionary()


def host(chain: Chain) -> HostChain:
    """Return the chain as a function, one for all equal chains."""
    return _hosts.setdefault(chain.key, HostChain(chain, empty))
