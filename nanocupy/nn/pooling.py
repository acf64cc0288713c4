"""Pooling over windows of x [N, ..., C], as `mlx.nn` has it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import reduce

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.module import Module

Sizes = int | tuple[int, ...] | list[int]


class _Pool(Module):
    """
    Args:
        kernel_size: the size of a window: a number, or one for each axis.
        stride: the step between windows. None: kernel_size.
        padding: the padding at both ends of each axis.
    """

    rank: int
    beyond: float  # the padding value
    pooled: Callable[[list[array]], array]

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__()
        self._kernel = self._sizes("kernel_size", kernel_size, 1)
        self._stride = self._sizes("stride", kernel_size if stride is None else stride, 1)
        self._padding = self._sizes("padding", padding, 0)

    def __call__(self, x: array) -> array:
        if x.ndim != self.rank + 2:
            raise ValueError(
                f"[{type(self).__name__}] x {list(x.shape)}: expected {self.rank + 2} dimensions"
            )
        if any(self._padding):
            around = [(0, 0), *((p, p) for p in self._padding), (0, 0)]
            x = core.pad(x, around, constant_values=self.beyond)
        axes = list(zip(x.shape[1:-1], self._kernel, self._stride, strict=True))
        ends = [(size - kernel) // step * step + 1 for size, kernel, step in axes]
        places = itertools.product(*map(range, self._kernel))
        return type(self).pooled([x[self._every(place, ends)] for place in places])

    def _every(self, place: tuple[int, ...], ends: list[int]) -> tuple[slice, ...]:
        """The index of the element at one place of every window."""
        sides = zip(place, ends, self._stride, strict=True)
        return (slice(None), *(slice(at, at + end, step) for at, end, step in sides))

    def _sizes(self, name: str, value: Sizes, least: int) -> list[int]:
        sizes = [value] * self.rank if isinstance(value, int) else list(value)
        if len(sizes) != self.rank or min(sizes) < least:
            raise ValueError(
                f"[{type(self).__name__}] {name}={value}: expected a number from {least}, or "
                f"{self.rank} of them"
            )
        return sizes

    def _extra_repr(self) -> str:
        kernel, stride, padding = map(tuple, (self._kernel, self._stride, self._padding))
        return f"kernel_size={kernel}, stride={stride}, padding={padding}"


def _largest(windows: list[array]) -> array:
    return reduce(core.maximum, windows)


def _average(windows: list[array]) -> array:
    return reduce(core.add, windows) / len(windows)


def _kinds(name: str, pooled: Callable[[list[array]], array], beyond: float) -> list[type[_Pool]]:
    """Make the pools of 1, 2 and 3 axes."""
    about = {"pooled": staticmethod(pooled), "beyond": beyond, "__doc__": _Pool.__doc__}
    return [
        type(f"{name}Pool{rank}d", (_Pool,), {**about, "rank": rank, "__module__": __name__})
        for rank in (1, 2, 3)
    ]


AvgPool1d, AvgPool2d, AvgPool3d = _kinds("Avg", _average, 0.0)
MaxPool1d, MaxPool2d, MaxPool3d = _kinds("Max", _largest, -core.inf)
