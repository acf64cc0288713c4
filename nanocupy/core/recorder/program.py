"""A Program: a flat list of kernel launches over static buffers, made once.

record -> rules -> placement -> launches -> Graph (captured) or the same list one by one (eager)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array
from nanocupy.core.recorder.graph import (
    CONSTANT,
    ITEM,
    STATIC,
    Node,
    inlined,
    size,
    topological,
    width,
)
from nanocupy.core.recorder.lowering import Lowering, Operand, Sizes
from nanocupy.core.recorder.rules import RULES, Rule
from nanocupy.core.recorder.within_rows import fold_constants
from nanocupy.device.protocols import Device, Launch


class Program:
    """Computes arrays on a device, from static buffers to static buffers.

    Args:
        outputs: recorded arrays. Their leaves are `fast.static` buffers and constants.
        device: where it runs.
        rules: simplifications to apply, in order. None: those of the device.

    Attributes:
        outputs: the device buffers of the results, at capacity.
        workspace_bytes: memory of all values in between.
    """

    def __init__(
        self, outputs: Sequence[array], device: Device, rules: Sequence[Rule] | None = None
    ) -> None:
        self.device = device
        roots = fold_constants(inlined([a.node for a in outputs]), device)
        for rule in RULES if rules is None else rules:
            roots = rule(roots)
        nodes = topological(roots)
        if _debugged():
            from nanocupy.core.recorder import debug

            debug.graph("program", nodes)
        self._lowering = lowering = Lowering(device)
        self.workspace_bytes = _place(nodes, roots, lowering)
        for node in nodes:
            if node.op.lower:
                node.op.lower(lowering, node)
        self.outputs = [lowering.of(n).view[: size(n.shape)].reshape(n.shape) for n in roots]

    def launches(self, sizes: Sizes = ()) -> list[Launch]:
        """Return every kernel launch, in order.

        Args:
            sizes: capacities smaller than a symbolic number of rows allows: what is launched then
                serves no more rows than that.
        """
        return [launch for step in self._lowering.sized for launch in step.launches(sizes)]

    def capture(self, sizes: Sizes = ()) -> Any:
        """Return a Graph that runs without Python between kernels."""
        launches = self.launches(sizes)
        if not _debugged():
            return self.device.capture(launches)
        from nanocupy.core.recorder import debug

        return debug.captured(self.device, launches)

    def eager(self, sizes: Sizes = ()) -> Any:
        """Return a Graph that runs the same launches one at a time."""
        return self.device.eager(self.launches(sizes))

    def close(self) -> None:
        """Release all buffers; the Program cannot be run again."""
        self._lowering.close()
        self.outputs = []

    def __repr__(self) -> str:
        return f"Program({len(self._lowering.sized)} steps, {self.workspace_bytes:,} bytes)"


def _debugged() -> bool:
    """Whether `recorder.debug` has something to print, or a wrong level to refuse."""
    return os.environ.get("NANOCUPY_DEBUG", "0") not in ("", "0")


# ---- placement in memory


def _place(nodes: list[Node], roots: list[Node], to: Lowering) -> int:
    """Give every value a place in the arena; values never alive together share memory."""
    owner = _owners(nodes)
    last = _last_uses(nodes, roots, owner)
    pool = Pool()
    spots: dict[tuple[Node, int], tuple[int, int]] = {}
    for time, node in enumerate(nodes):
        if owner[node] is node and node.op not in (CONSTANT, STATIC) and "into" not in node.attrs:
            for index, (shape, dtype) in enumerate(node.specs):
                spots[node, index] = pool.take(size(shape) * dtype.itemsize)
        for dead in last.get(time, ()):
            for index in range(len(dead.specs)):
                if (dead, index) in spots:
                    pool.give(*spots[dead, index])
    try:
        arena = to.device.empty((max(pool.size, ALIGN),), np.uint8)
    except MemoryError:
        raise ValueError(
            f"[program] no memory for {pool.size:,} bytes of values between kernels: lower "
            "--max-num-batched-tokens or --max-num-seqs"
        ) from None
    for node in nodes:
        _put(node, to, arena, spots)
    return pool.size


def _put(
    node: Node, to: Lowering, arena: Any, spots: dict[tuple[Node, int], tuple[int, int]]
) -> None:
    """Enter the node's outputs into `to.places`."""
    if node.op is ITEM:
        to.places[node, 0] = to.of(node.inputs[0], node.attrs["index"])
    elif node.op.alias:
        to.places[node, 0] = node.op.alias(node, to.of(node.inputs[0]))
    elif node.op in (CONSTANT, STATIC):
        buffer = node.attrs["buffer"] if node.op is STATIC else to.constant(node.attrs["value"])
        to.places[node, 0] = Operand(buffer, 0, width(node.shape))
    elif "into" in node.attrs:
        for index, buffer in enumerate(node.attrs["into"]):
            to.places[node, index] = Operand(buffer, 0, width(node.specs[index][0]))
    elif node.op.lower is None:
        raise NotImplementedError(f"[{node.op.name}] has no kernel yet: it cannot be compiled")
    else:
        for index, (shape, dtype) in enumerate(node.specs):
            start, _ = spots[node, index]
            buffer = arena[start : start + max(size(shape) * dtype.itemsize, ALIGN)]
            buffer = buffer[: buffer.nbytes // dtype.itemsize * dtype.itemsize].view(dtype)
            to.places[node, index] = Operand(buffer, 0, width(shape))


def _owners(nodes: list[Node]) -> dict[Node, Node]:
    """Return the node in whose memory each node's value lies."""
    owner: dict[Node, Node] = {}
    for node in nodes:
        owner[node] = owner[node.inputs[0]] if node.op is ITEM or node.op.alias else node
    return owner


def _last_uses(
    nodes: list[Node], roots: list[Node], owner: dict[Node, Node]
) -> dict[int, list[Node]]:
    """Return {time: the values that nothing reads after it}."""
    time_of: dict[Node, int] = {}
    for time, node in enumerate(nodes):
        time_of.setdefault(owner[node], time)
        for source in node.inputs:
            time_of[owner[source]] = time
    kept = {owner[n] for n in roots}
    out: dict[int, list[Node]] = {}
    for node, time in time_of.items():
        if node not in kept:
            out.setdefault(time, []).append(node)
    return out


# ---- the arena: values that are never alive together share its memory

ALIGN = 64  # bytes


class Pool:
    """Offsets in one arena: the smallest free piece that fits, else the end."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []  # (offset, bytes), by offset, never adjacent

    def take(self, nbytes: int) -> tuple[int, int]:
        need = -(-max(nbytes, 1) // ALIGN) * ALIGN
        fits = [piece for piece in self._free if piece[1] >= need]
        if fits:
            offset, length = min(fits, key=lambda piece: piece[1])
            self._free.remove((offset, length))
            if length > need:
                self._free.append((offset + need, length - need))
                self._free.sort()
            return offset, need
        offset = self.size
        if self._free and sum(self._free[-1]) == self.size:
            offset = self._free.pop()[0]
        self.size = offset + need
        return offset, need

    def give(self, offset: int, nbytes: int) -> None:
        merged: list[tuple[int, int]] = []
        for start, length in sorted([*self._free, (offset, nbytes)]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._free = merged
