"""Fused elementwise operations: one pass over memory for a chain of them, generated.

A chain (`device/chain.py`) is made into a kernel for the way its inputs lie: on the CPU by LLVM
(`device/cpu/chains.py`), on a GPU as CUDA source (`cuda.py`). Inputs may be broadcast and strided;
outputs have the full shape and no gaps. The kernel reads the first dimension from the device, so
that the number of rows may be symbolic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nanocupy.device.chain import Loops, item_bytes
from nanocupy.device.protocols import Rows

Strides = tuple[int, ...]


class Layout(NamedTuple):
    """How the inputs of a chain lie in memory.

    Attributes:
        scale: times the number of rows, it is the first dimension.
        dims: the others.
        strides: bytes, of each input along every dimension.
        ways: see `Loops`.
    """

    scale: int
    dims: tuple[int, ...]
    strides: tuple[Strides, ...]
    ways: tuple[str, ...]

    @property
    def loops(self) -> Loops:
        return Loops(len(self.dims), self.ways)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The last arguments of a kernel: see `Loops.counts`."""
        return self.scale, *self.dims, *(s for walk in self.strides for s in walk)


def layout(shape: Sequence[int], strides: Sequence[Strides], kinds: Sequence[str]) -> Layout:
    """The layout with the fewest dimensions: neighbours become one where every input allows it.

    Args:
        shape: of the result; the first dimension may become another when the kernel runs.
        strides: of each input, in bytes, 0 where it is broadcast.
    """
    dims, walks = [1], [[0] for _ in strides]  # the dimension of rows, which `scale` belongs to
    if shape:
        dims, walks = [int(shape[0])], [[s[0]] for s in strides]
    scale = 1
    for axis in range(1, len(shape)):
        size = int(shape[axis])
        if size == 1:
            continue
        joins = all(w[-1] == s[axis] * size for w, s in zip(walks, strides, strict=True))
        if joins or (dims[-1] == 1 and not isinstance(shape[0], Rows)):
            scale = scale * size if len(dims) == 1 else scale
            dims[-1] *= size
            for w, s in zip(walks, strides, strict=True):
                w[-1] = s[axis]
        else:
            dims.append(size)
            for w, s in zip(walks, strides, strict=True):
                w.append(s[axis])
    ways = tuple(_way(w, k) for w, k in zip(walks, kinds, strict=True))
    return Layout(scale, tuple(dims[1:]), tuple(tuple(w) for w in walks), ways)


def _way(walk: list[int], kind: str) -> str:
    if not any(walk):
        return "all"
    if walk[-1] == 0:
        return "one"
    return "row" if walk[-1] == item_bytes(kind) else "far"
