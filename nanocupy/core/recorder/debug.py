"""Print what is recorded and run: `NANOCUPY_DEBUG`.

`NANOCUPY_DEBUG=1` prints every graph that is compiled, 2 also each kernel with its time and its
bytes a second, 3 also the source of every kernel that is generated. All goes to stderr.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from nanocupy.core.recorder.graph import Node
from nanocupy.device.protocols import Device, Graph, Launch

LEVELS = ("0", "1", "2", "3")


def level() -> int:
    """Return `NANOCUPY_DEBUG`, 0 if it is not set."""
    asked = os.environ.get("NANOCUPY_DEBUG") or "0"
    if asked not in LEVELS:
        raise ValueError(f"NANOCUPY_DEBUG={asked!r}: expected one of {', '.join(LEVELS)}")
    return int(asked)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def graph(title: str, nodes: Sequence[Node]) -> None:
    """Print a graph, a node a line, and at level 3 the sources of its chains."""
    if level() < 1:
        return
    number = {node: i for i, node in enumerate(nodes)}
    log(f"[nanocupy] {title}: {len(nodes)} nodes")
    for node, i in number.items():
        outs = ", ".join(f"{dtype}{list(map(int, shape))}" for shape, dtype in node.specs)
        reads = ", ".join(f"%{number[n]}" for n in node.inputs if n in number)
        log(f"  %{i} = {label(node)}({reads}) -> {outs}")
        if "run" in node.attrs:
            source(label(node), node.attrs["run"].source)


def label(node: Node) -> str:
    """The operation's name, with those that a chain is made of."""
    return f"{node.op.name}[{node.attrs['names']}]" if "names" in node.attrs else node.op.name


def source(name: str, text: str) -> None:
    """Print a kernel's source."""
    if level() >= 3:
        log(f"[nanocupy] source of {name}:\n{text}")


class StepTimer:
    """Times each step of a run and prints it."""

    def __init__(self, title: str) -> None:
        log(f"[nanocupy] run {title}")

    def time(self, step: Any, values: list[Any], attrs: dict[str, Any]) -> Any:
        start = time.perf_counter()
        value = step.function(*values, **attrs)
        seconds = time.perf_counter() - start
        line(label(step.node), seconds, nbytes([*values, value]))
        return value


def line(name: str, seconds: float, moved: int, most: str = "") -> None:
    rate = moved / max(seconds, 1e-9) / 1e9
    log(f"  {seconds * 1e6:10.1f} us {most}{rate:8.2f} GB/s  {name}")


def nbytes(values: Any) -> int:
    """Return the bytes of the arrays in lists and tuples."""
    if isinstance(values, list | tuple):
        return sum(nbytes(v) for v in values)
    return int(values.nbytes) if hasattr(values, "nbytes") else 0


def captured(device: Device, launches: Sequence[Launch]) -> Graph:
    """A graph of the launches; at level 2 one that runs them one by one and prints each."""
    return device.capture(launches) if level() < 2 else TimedGraph(device, launches)


class TimedGraph:
    """Launches, each by itself. A kernel's bytes are those of its arguments at capacity: the most
    that it can read and write."""

    def __init__(self, device: Device, launches: Sequence[Launch]) -> None:
        self.launches = list(launches)
        self._device = device
        self._each = [device.eager([launch]) for launch in launches]
        for kernel in {x.kernel.name: x.kernel for x in launches}.values():
            if text := getattr(kernel, "text", None):
                source(kernel.name, text)

    def run(self) -> None:
        log("[nanocupy] run program")
        for launch, graph in zip(self.launches, self._each, strict=True):
            start = time.perf_counter()
            graph.run()
            self._device.wait()
            seconds = time.perf_counter() - start
            line(launch.kernel.name, seconds, nbytes(launch.args), "at most ")
