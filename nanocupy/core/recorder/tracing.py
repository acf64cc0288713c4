"""What stands in a graph for values that are not there: while a function is recorded, and after its
caller gave one away.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from nanocupy.core.recorder.graph import ITEM, Node, Op, Spec, leaf
from nanocupy.core.recorder.rewriting import Outputs, rebuild, same


def _no_value(*, function: str) -> NoReturn:
    raise ValueError(
        f"[eval] an array of the compiled function {function} has no value while the function is "
        "recorded: eval, item, tolist, print, if and conversion to NumPy are not allowed in it. "
        "(Where this array has left the function: return it, or name its place in `outputs`.)"
    )


def _donated(*, function: str) -> NoReturn:
    raise ValueError(
        f"[eval] this array was donated to the compiled function {function}, which may have its "
        "result in the same memory: use the result, or leave the argument out of `donate`"
    )


# An argument of a function that is being recorded.
PLACEHOLDER = Op("argument", leaf, _no_value, effect=True)
# What an evaluated array becomes that was given away.
DONATED = Op("donated", leaf, _donated, effect=True)
# A call of a compiled function: `plan` computes the outputs from the inputs.
COMPILED = Op(
    "compiled",
    lambda *_, plan: plan.specs,
    lambda *values, plan: plan(list(values)) if len(plan.specs) > 1 else plan(list(values))[0],
)


def placeholder(spec: Spec, function: str) -> Node:
    return Node(PLACEHOLDER, (), {"function": function}, [spec])


def give_away(node: Node, function: str) -> None:
    """An evaluated node has no value from now on."""
    node.op, node.attrs = DONATED, {"function": function}


def expanded(outputs: Outputs) -> Outputs:
    """The graph of a compiled function in the place of its call."""
    results: dict[Node, list[Node]] = {}

    def make(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.op is ITEM and inputs[0] in results:
            return results[inputs[0]][node.attrs["index"]]
        if node.op is not COMPILED:
            return same(node, inputs)
        plan = node.attrs["plan"]
        instead = dict(zip(plan.inputs, inputs, strict=True))
        made = rebuild(plan.recorded, lambda n, reads: instead.get(n) or same(n, reads))
        call = same(node, inputs)
        results[call] = made
        return made[0] if len(made) == 1 else call

    return rebuild(outputs, make)


# ---- whether a function is being recorded, in this thread

_state = threading.local()


def recording() -> bool:
    return getattr(_state, "depth", 0) > 0


@contextmanager
def recorded() -> Iterator[None]:
    """What is called here is part of the function that is being recorded."""
    _state.depth = getattr(_state, "depth", 0) + 1
    try:
        yield
    finally:
        _state.depth -= 1
