"""A recorded graph made ready to be run many times on NumPy arrays.

What a graph is run by is the NumPy form of each node, as in `eval`; what is ready beforehand is
the order, the chains (`chains.fuse`), and when every value is let go of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from sys import getrefcount
from typing import Any, NamedTuple

import numpy as np

from nanocupy.core.compiling.custom import CUSTOM
from nanocupy.core.recorder import debug
from nanocupy.core.recorder.arrays import array, constant, run, static
from nanocupy.core.recorder.chains import FUSED, fuse
from nanocupy.core.recorder.graph import (
    CONSTANT,
    Node,
    Op,
    Spec,
    item,
    rebuild,
    size,
    topological,
    with_inputs,
)
from nanocupy.core.recorder.heap import is_owned
from nanocupy.core.recorder.program import Program
from nanocupy.core.recorder.rules import common_subexpressions

FOLDED = 1 << 20  # bytes of the largest value that is computed beforehand


class Step(NamedTuple):
    """One node: the slots of its inputs and of its value, and those that it frees."""

    node: Node
    function: Callable[..., Any]
    attrs: dict[str, Any]  # of the node, which may be computed by somebody else and be a constant
    inputs: tuple[int, ...]
    out: int
    dead: tuple[int, ...]


class Schedule:
    """Computes outputs from inputs.

    Args:
        inputs: leaves of the graph.
        outputs: nodes that depend on these and on constants.
        device: where chains run, and all of the graph if it has a kernel for everything. None: by
            the CPU, on the arrays themselves.
        name: for messages.
    """

    def __init__(
        self, inputs: Sequence[Node], outputs: Sequence[Node], device: Any = None, name: str = ""
    ) -> None:
        self.inputs, self.name, self.recorded = list(inputs), name, list(outputs)
        roots = common_subexpressions(folded(list(outputs)))
        self.outputs = fuse(roots)
        self.specs = [n.specs[0] for n in self.outputs]
        self._device = device
        given = set(inputs)
        nodes = [n for n in topological(self.outputs) if n not in given]
        whole = device and _as_program(self.inputs, roots, device)
        self._place = {n: i for i, n in enumerate([*self.inputs, *nodes])}
        self._values = [n.attrs["value"] if n.op is CONSTANT else None for n in self._place]
        self.steps = [] if whole else self._steps([n for n in nodes if n.op is not CONSTANT])
        self._whole = whole
        self._outs = [self._place[n] for n in self.outputs]
        self._timed = debug.level() >= 2
        debug.graph(name, [*self.inputs, *nodes])

    def __call__(self, values: list[Any]) -> list[Any]:
        """Return the outputs' values. `values` of the inputs is emptied, so that memory nobody else
        refers to can hold results."""
        if self._whole:
            return self._whole(*values)
        slots = [*values, *self._values[len(values) :]]
        values.clear()
        clock = debug.StepTimer(self.name) if self._timed else None
        for step in self.steps:
            reads = [slots[i] for i in step.inputs]
            more = dict(step.attrs)
            if step.function is FUSED.numpy:
                more["out"] = self._reused(step, slots)
            if clock:
                slots[step.out] = clock.time(step, reads, more)
            else:
                slots[step.out] = step.function(*reads, **more)
            for i in step.dead:
                slots[i] = None
        return [slots[i] for i in self._outs]

    def _steps(self, nodes: list[Node]) -> list[Step]:
        last = {self._place[n]: step for step, node in enumerate(nodes) for n in node.inputs}
        kept = {self._place[n] for n in self.outputs}
        kept |= {i for i, n in enumerate(self._place) if n.op is CONSTANT}
        dead: dict[int, list[int]] = {}
        for place, step in last.items():
            if place not in kept:
                dead.setdefault(step, []).append(place)
        return [
            Step(
                node,
                self._function(node),
                node.attrs,
                tuple([self._place[n] for n in node.inputs]),
                self._place[node],
                tuple(dead.get(step, ())),
            )
            for step, node in enumerate(nodes)
        ]

    def _function(self, node: Node) -> Callable[..., Any]:
        if self._device and node.op in (FUSED, CUSTOM):
            return _one_on_device(node, self._device)
        return node.op.numpy or partial(run_only_in_programs, node.op)

    def _reused(self, step: Step, slots: list[Any]) -> Any:
        """Return an input whose memory can hold the result and that nothing else refers to."""
        shape, dtype = step.node.specs[0]
        if len(step.node.specs) > 1:
            return None
        for place in step.dead:
            references = _references(slots, place)
            x = slots[place]
            fits = x.dtype.itemsize == dtype.itemsize and x.shape == shape
            if fits and x.flags.carray and references in _ALONE and is_owned(x):
                return (x.view(dtype),)
        return None


def _references(holders: list[Any], place: int) -> tuple[int, int]:
    """Return the reference counts of an array in a list and of its base, 0 without a base."""
    x = holders[place]
    return getrefcount(x), 0 if x.base is None else getrefcount(x.base)


def _sole_references() -> set[tuple[int, int]]:
    """Return the counts of arrays that only `slots` and `reads` refer to, as this Python counts."""
    slots = [np.empty(2), np.empty(2)[:1]]
    reads = list(slots)
    return {_references(slots, place) for place in range(len(reads))}


_ALONE = _sole_references()


def run_only_in_programs(op: Op, *_: Any, **__: Any) -> Any:
    """Stand for a NumPy form that does not exist: a schedule may be made, but not run."""
    raise NotImplementedError(f"[{op.name}] has no NumPy form: it runs only in a Program")


def folded(outputs: list[Node]) -> list[Node]:
    """Replace nodes that depend on constants alone by constants, unless they are large."""

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        node = with_inputs(node, inputs)
        known = all(n.op is CONSTANT for n in inputs) and not node.op.effect
        if node.op is CONSTANT or not known or len(node.specs) > 1:
            return node
        if size(node.shape) * node.dtype.itemsize > FOLDED or node.op.numpy is None:
            return node
        with np.errstate(all="ignore"):
            value = run(node.op, [n.attrs["value"] for n in inputs], node.attrs)
        return constant(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else node

    return rebuild(outputs, make)


# ---- on a device


class DeviceFunction:
    """A graph as a captured Program that takes NumPy arrays and gives them.

    Args:
        specs: of the inputs.
        make: the outputs, of nodes in the places of the inputs.
    """

    def __init__(
        self, specs: Sequence[Spec], make: Callable[[list[Node]], list[Node]], device: Any
    ) -> None:
        self._device, self._lock = device, threading.Lock()
        self._buffers = [device.empty(shape, dtype) for shape, dtype in specs]
        leaves = [static(b, s).node for b, (s, _) in zip(self._buffers, specs, strict=True)]
        self.program = Program([array(n) for n in make(leaves)], device)
        self._graph = self.program.capture()

    def __call__(self, *values: np.ndarray) -> list[np.ndarray]:
        with self._lock:  # the buffers are there once
            for buffer, value in zip(self._buffers, values, strict=True):
                self._device.write(buffer, np.ascontiguousarray(value).reshape(buffer.shape))
            self._graph.run()
            return [np.array(self._device.read(out)) for out in self.program.outputs]


def _one_on_device(node: Node, device: Any) -> Callable[..., Any]:
    """Return a function like the node's NumPy form that runs on the device."""

    def make(leaves: list[Node]) -> list[Node]:
        again = Node(node.op, tuple(leaves), node.attrs, node.specs)
        count = len(node.specs)
        return [again] if count == 1 else [item(again, i) for i in range(count)]

    run = DeviceFunction([n.specs[0] for n in node.inputs], make, device)
    if len(node.specs) > 1:
        return lambda *values, **_: run(*values)
    return lambda *values, **_: run(*values)[0]


def _as_program(inputs: list[Node], outputs: list[Node], device: Any) -> DeviceFunction | None:
    """The graph as one Program, if the device has a kernel for everything in it."""

    def make(leaves: list[Node]) -> list[Node]:
        instead = dict(zip(inputs, leaves, strict=True))
        return rebuild(outputs, lambda node, ins: instead.get(node) or with_inputs(node, ins))

    try:
        return DeviceFunction([n.specs[0] for n in inputs], make, device)
    except NotImplementedError:
        return None
