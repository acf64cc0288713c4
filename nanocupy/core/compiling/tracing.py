"""Nodes without a value: arguments of a function that is being recorded, and donated arrays."""

from __future__ import annotations

from typing import Any, NoReturn

from nanocupy.core.recorder.graph import Node, Op, Spec, leaf, rebuild, with_inputs


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


def _inline(node: Node, inputs: tuple[Node, ...]) -> list[Node]:
    schedule = node.attrs["schedule"]
    instead = dict(zip(schedule.inputs, inputs, strict=True))
    return rebuild(schedule.recorded, lambda n, reads: instead.get(n) or with_inputs(n, reads))


def _run(*values: Any, schedule: Any) -> Any:
    results = schedule(list(values))
    return results if len(results) > 1 else results[0]


# A call of a compiled function: the schedule computes the outputs from the inputs.
COMPILED = Op("compiled", lambda *_, schedule: schedule.specs, _run, inline=_inline)


def placeholder(spec: Spec, function: str) -> Node:
    return Node(PLACEHOLDER, (), {"function": function}, [spec])


def give_away(node: Node, function: str) -> None:
    """Take the value of an evaluated node away."""
    node.op, node.attrs = DONATED, {"function": function}
