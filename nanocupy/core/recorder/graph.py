"""The recorded graph: operations and nodes.

Calling an operation on arrays records a `Node`; nothing is computed. A node is evaluated by its
operation's NumPy form (`eval`), or lowered to kernel launches in a Program (`compile`).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shape = tuple[int, ...]
Spec = tuple[Shape, np.dtype[Any]]
Steps = Callable[..., Any]
"""`steps(*values, **attrs)`: an operation as steps of a chain (`kernels.chains.functions`)."""
_order = itertools.count()


@dataclass(frozen=True, eq=False)
class Op:
    """An operation.

    Attributes:
        infer: `infer(*specs, **attrs)` -> spec of the output, or a list of specs.
        numpy: the NumPy form: `numpy(*arrays, **attrs)` -> array or tuple. None: only in a Program.
        lower: `lower(lowering, node)` appends the launches that compute the node. None: only NumPy.
        alias: the output is the input's memory, seen differently: costs nothing in a Program.
        row_wise: row i of the output depends on row i of every input that has rows.
        moves: the output's elements are the inputs', in other places.
        effect: changes something besides its output: never merged or dropped, and the order of
            effects stays. (One that is row_wise, too, may be done for fewer rows: see `rules`.)
        steps: the operation as steps of a chain, if it has any.
        inline: `inline(node, inputs)`: the outputs as a graph of other operations.
    """

    name: str
    infer: Callable[..., Any]
    numpy: Callable[..., Any] | None = None
    lower: Callable[..., None] | None = None
    alias: Callable[..., Any] | None = None
    row_wise: bool = False
    moves: bool = False
    effect: bool = False
    steps: Steps | None = None
    inline: Callable[[Node, tuple[Node, ...]], list[Node]] | None = None

    def __repr__(self) -> str:
        return f"Op({self.name})"


@dataclass(eq=False, slots=True)
class Node:
    """One recorded operation; `specs` are the shapes and dtypes of its outputs."""

    op: Op
    inputs: tuple[Node, ...]
    attrs: dict[str, Any]
    specs: list[Spec] = field(default_factory=list)
    order: int = field(default_factory=lambda: next(_order))

    def __post_init__(self) -> None:
        if not self.specs:
            inferred = self.op.infer(*[n.specs[0] for n in self.inputs], **self.attrs)
            self.specs = inferred if isinstance(inferred, list) else [inferred]

    @property
    def shape(self) -> Shape:
        return self.specs[0][0]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.specs[0][1]

    def __repr__(self) -> str:
        return f"{self.op.name}{list(self.shape)}"


def width(shape: Shape) -> int:
    """Return the elements of one row: the product of all dimensions but the first."""
    return int(np.prod([int(d) for d in shape[1:]], dtype=np.int64))


def size(shape: Shape) -> int:
    """Return the number of elements at capacity."""
    return int(np.prod([int(d) for d in shape], dtype=np.int64))


def topological(roots: Sequence[Node]) -> list[Node]:
    """Return every node that the roots need, inputs before users."""
    seen: set[Node] = set()
    out: list[Node] = []
    stack: list[tuple[Node, Iterator[Node]]] = []
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack.append((root, iter(root.inputs)))
        while stack:
            node, inputs = stack[-1]
            for child in inputs:
                if child not in seen:
                    seen.add(child)
                    stack.append((child, iter(child.inputs)))
                    break
            else:
                out.append(node)
                stack.pop()
    return out


# Leaf operations: an array that exists, a device buffer; and an output of a node with several.


def leaf(**_: Any) -> Spec:
    """Raise: a leaf is made with its spec."""
    raise AssertionError("a leaf is made with its spec")


CONSTANT = Op("constant", leaf, numpy=lambda *, value, **_: value)
STATIC = Op("static", leaf)
ITEM = Op("item", lambda *_, index: None, numpy=lambda values, *, index: values[index])


def item(node: Node, index: int) -> Node:
    """Output `index` of a node as a node of its own."""
    return Node(ITEM, (node,), {"index": index}, [node.specs[index]])


# ---- rewriting: a graph rebuilt from its leaves on, node by node

Outputs = list[Node]


def rebuild(outputs: Outputs, make: Callable[[Node, tuple[Node, ...]], Node]) -> Outputs:
    """Return the graph with `make(node, new inputs)` in place of every node, inputs first."""
    new: dict[Node, Node] = {}
    for node in topological(outputs):
        new[node] = make(node, tuple(new[n] for n in node.inputs))
    return [new[n] for n in outputs]


def with_inputs(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Return the node with new inputs; the node itself if they are its own."""
    if inputs == node.inputs:
        return node
    return Node(node.op, inputs, node.attrs, node.specs, node.order)


def inlined(outputs: Outputs) -> Outputs:
    """Return the graph with compiled functions inlined."""
    results: dict[Node, list[Node]] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.op is ITEM and inputs[0] in results:
            return results[inputs[0]][node.attrs["index"]]
        if node.op.inline is None:
            return with_inputs(node, inputs)
        made = node.op.inline(node, inputs)
        call = with_inputs(node, inputs)
        results[call] = made
        return made[0] if len(made) == 1 else call

    return rebuild(outputs, make)


def users(outputs: Outputs) -> dict[Node, list[Node | None]]:
    """Return the nodes that read each node; None stands for the caller."""
    table: dict[Node, list[Node | None]] = defaultdict(list)
    for node in topological(outputs):
        for source in node.inputs:
            table[source].append(node)
    for node in outputs:
        table[node].append(None)
    return table
