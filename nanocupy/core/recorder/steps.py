"""Elementwise operations written as steps of a chain, and what follows from that.

Such an operation has one result, to the bit, on every device. It is launched by a kernel of its own
where it has one, else as a chain of one operation. `recorder.chains`, which makes kernels of steps,
is loaded when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from nanocupy.core.recorder.graph import Node, Steps
from nanocupy.core.recorder.lowering import Lowering


def steps_of(name: str) -> Steps:
    """The steps of `kernels.chains.functions` with this name, loaded with their first use."""

    def steps(*values: Any) -> Any:
        from nanocupy.kernels.chains import functions

        return getattr(functions, name)(*values)

    return steps


def of_numbers(steps: Steps) -> Steps:
    """The steps with bools as numbers (see `specs.wide`)."""
    return lambda *x: steps(*(v.cast("i8") if v.kind == "bool" else v for v in x))


def without_gaps(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """The NumPy form of an operation with steps: its result has no gaps, as that of a chain, since
    the bits of a sum depend on how its terms lie in memory."""
    return lambda *arrays, **attrs: np.asarray(function(*arrays, **attrs), order="C")


def by_chain(steps: Steps, otherwise: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The NumPy form of an operation that is rounded as its steps are, and in no other way.

    Args:
        otherwise: for dtypes that have no steps: float64.
    """

    def run(*arrays: np.ndarray) -> np.ndarray:
        from nanocupy.core.recorder import chains

        return chains.evaluate(steps, otherwise, arrays)

    return run


def kernel_or_chain(
    steps: Steps, kernel: Callable[[Lowering, Node], None] | None = None
) -> Callable[[Lowering, Node], None]:
    """How an operation is launched: by `kernel` where it takes these shapes and dtypes, else as a
    chain of one."""

    def lower(to: Lowering, node: Node) -> None:
        with suppress(NotImplementedError):
            if kernel and node.shape:
                kernel(to, node)
                return
        from nanocupy.core.recorder import chains

        chains.lower_one(to, node, steps)

    return lower
