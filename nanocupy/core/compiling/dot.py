"""Recorded graphs in Graphviz's language."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from nanocupy.core.recorder.arrays import array, arrays_in
from nanocupy.core.recorder.debug import label
from nanocupy.core.recorder.graph import CONSTANT, Node, topological


def export_to_dot(file: Any, *outputs: Any, **named: array) -> None:
    """Write the graph of arrays that are not evaluated yet, in Graphviz's language.

    Args:
        file: a path, or something with `write`.
        outputs: arrays, or trees of them.
        named: arrays with names of their own in the graph.
    """
    names = {a.node: name for name, a in named.items()}
    roots = [a.node for a in arrays_in([*outputs, *named.values()])]
    if not roots:
        raise ValueError("[export_to_dot] no arrays: give those whose graph is wanted")
    text = _dot(topological(roots), roots, names)
    if hasattr(file, "write"):
        file.write(text)
    else:
        with open(file, "w", encoding="utf-8") as to:
            to.write(text)


def _dot(nodes: Sequence[Node], roots: Sequence[Node], names: dict[Node, str]) -> str:
    fresh, lines = count(), ["digraph {"]
    of = {node: names.get(node) or f"v{next(fresh)}" for node in nodes}
    for node in nodes:
        shape = f"{node.dtype}{list(map(int, node.shape))}"
        rank = "source" if not node.inputs else "sink" if node in roots else ""
        where = f"rank={rank}; " if rank else ""
        lines.append(f'{{ {where}"{of[node]}" [label="{of[node]} {shape}"]; }}')
        if node.op is CONSTANT:
            continue
        lines.append(f'{{ "op {of[node]}" [label="{label(node)}", shape=rectangle]; }}')
        lines += [f'"{of[n]}" -> "op {of[node]}"' for n in node.inputs]
        lines.append(f'"op {of[node]}" -> "{of[node]}"')
    return "\n".join([*lines, "}", ""])
