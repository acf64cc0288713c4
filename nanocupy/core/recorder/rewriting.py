"""How a recorded graph is rewritten: rebuilt from its leaves on, node by node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from nanocupy.core.recorder.graph import Node, topological

Outputs = list[Node]


def rebuild(outputs: Outputs, make: Callable[[Node, tuple[Node, ...]], Node]) -> Outputs:
    """The graph with `make(node, new inputs)` in place of every node, inputs first."""
    new: dict[Node, Node] = {}
    for node in topological(outputs):
        new[node] = make(node, tuple(new[n] for n in node.inputs))
    return [new[n] for n in outputs]


def same(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The node on new inputs; itself if they are the old ones."""
    if inputs == node.inputs:
        return node
    return Node(node.op, inputs, node.attrs, node.specs, node.order)


def users(outputs: Outputs) -> dict[Node, list[Node | None]]:
    """Who reads each node; None for the caller."""
    table: dict[Node, list[Node | None]] = defaultdict(list)
    for node in topological(outputs):
        for source in node.inputs:
            table[source].append(node)
    for node in outputs:
        table[node].append(None)
    return table
