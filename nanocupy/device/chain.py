"""A chain: elementwise arithmetic as a list of steps, from which a device makes one kernel.

Every step makes one new value; values are numbered, the inputs first. A step is exact or rounds
once, as IEEE 754 says, in every device's code; so a chain has one result, to the bit.

The kinds of values: bool, i8 to i64, u8 to u64, f32, f64. Memory may also hold f16 and bf16, which
are f32 between loads and stores; the steps "f16" and "bf16" round an f32 to what these can hold.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from nanocupy.dtypes import DTYPES

HALVES = ("f16", "bf16")


def item_bytes(kind: str) -> int:
    """Bytes of one element in memory."""
    return DTYPES[kind].itemsize


class Step(NamedTuple):
    """One value.

    Attributes:
        op: const; add sub mul div fma neg abs sqrt floor ceil trunc rint (of floats; the first
            three and neg of ints, too); lt le gt ge eq ne; and or xor not shl shr (of ints and
            bools); select (condition, x, y); cast; f16 bf16 (round an f32); toint (an f32 known
            to be a whole number of 32 bits); bits, float (an f32's bits as an i32, and back).
        kind: of the value.
        args: numbers of values; of a const, the number itself.
    """

    op: str
    kind: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Chain:
    """Elementwise arithmetic.

    Attributes:
        inputs: the kinds of the inputs in memory.
        steps: in order; step i makes value len(inputs) + i.
        outputs: (number of a value, its kind in memory).
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[tuple[int, str], ...]

    @cached_property
    def text(self) -> str:
        """A line for each step; equal chains have equal texts."""
        n = len(self.inputs)
        loads = [f"v{i} = load {kind}" for i, kind in enumerate(self.inputs)]
        steps = [
            f"v{n + i} = {s.kind} {s.op} " + " ".join(map(_argument(s), s.args))
            for i, s in enumerate(self.steps)
        ]
        stores = [f"store {kind} v{value}" for value, kind in self.outputs]
        return "\n".join((*loads, *steps, *stores))

    @cached_property
    def key(self) -> str:
        """A hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def kind_of(self, value: int) -> str:
        """The kind of a value in computations."""
        n = len(self.inputs)
        kind = self.inputs[value] if value < n else self.steps[value - n].kind
        return "f32" if kind in HALVES else kind


def _argument(step: Step) -> Any:
    return (
        (lambda x: x.hex() if isinstance(x, float) else str(x))
        if step.op == "const"
        else "v{}".format
    )


class Loops(NamedTuple):
    """How a chain runs over memory: what a kernel is made for, besides its chain.

    The last dimension is the row; before it come `outer` others. Outputs lie without gaps.

    Attributes:
        outer: how many dimensions come before the last.
        ways: how each input lies along the last dimension: "row" (one element after the other),
            "one" (the same one all along the row), "all" (one for the whole array), "far" (a
            stride).
        stream: results go past the caches: what is written is larger than they are.
    """

    outer: int
    ways: tuple[str, ...]
    stream: bool = False

    @property
    def key(self) -> str:
        return f"{self.outer}{''.join(way[0] for way in self.ways)}{'s' if self.stream else ''}"

    def counts(self, chain: Chain) -> dict[str, int]:
        """name -> how many int64 arguments of a kernel, in their order.

        outs, ins: addresses. rows: the address of a count; `scale` of it is the first dimension.
        dims: the other dimensions. strides: bytes, of each input along every dimension.
        """
        n = self.outer + 1
        return {
            "outs": len(chain.outputs),
            "ins": len(chain.inputs),
            "rows": 1,
            "scale": 1,
            "dims": n - 1,
            "strides": n * len(chain.inputs),
        }
