"""Sequential, and modules that do nothing when inferring, as `mlx.nn` has them."""

from __future__ import annotations

from typing import Any

from nanocupy.core import array
from nanocupy.nn.module import Module


class Identity(Module):
    """x. All arguments are ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, x: array) -> array:
        return x


class Dropout(Module):
    """x: nothing is dropped when inferring.

    Args:
        p: the probability of dropping in training, 0 <= p < 1.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"[{type(self).__name__}] p={p}: expected 0 <= p < 1")
        self.p = p

    def __call__(self, x: array) -> array:
        return x

    def _extra_repr(self) -> str:
        return f"p={self.p}"


class _Channels(Dropout):
    rank: int  # spatial axes, between an optional batch and the channels

    def __call__(self, x: array) -> array:
        if x.ndim not in (self.rank + 1, self.rank + 2):
            raise ValueError(
                f"[{type(self).__name__}] x {list(x.shape)}: expected {self.rank + 1} or "
                f"{self.rank + 2} dimensions"
            )
        return x


class Dropout2d(_Channels):
    """x: no channel is dropped when inferring."""

    rank = 2


class Dropout3d(_Channels):
    """x: no channel is dropped when inferring."""

    rank = 3


class Sequential(Module):
    """Apply modules and functions one after the other."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        self.layers = list(modules)

    def __call__(self, x: array) -> array:
        for module in self.layers:
            x = module(x)
        return x
