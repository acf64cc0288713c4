"""Layers that the engine has no kernels for yet, as `mlx.nn` has them: they run in NumPy."""

from __future__ import annotations

from typing import Any

from nanocupy import core
from nanocupy.core import array, fast
from nanocupy.nn.module import Module


class LayerNorm(Module):
    """x less its mean, by its deviation along the last axis.

    Args:
        affine: times a weight, and with `bias` plus a bias.
    """

    def __init__(
        self, dims: int, eps: float = 1e-5, affine: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.eps = eps
        if affine:
            self.weight = core.ones((dims,))
            if bias:
                self.bias = core.zeros((dims,))

    def __call__(self, x: array) -> array:
        return fast.layer_norm(x, self.get("weight"), self.get("bias"), self.eps)


class Conv1d(Module):
    """A convolution of x [N, L, in_channels], weight [out_channels, kernel_size, in/groups]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % groups:
            raise ValueError(f"[Conv1d] {in_channels} channels in {groups} groups")
        self.weight = core.zeros((out_channels, kernel_size, in_channels // groups))
        if bias:
            self.bias = core.zeros((out_channels,))
        self.stride, self.padding = stride, padding
        self.dilation, self.groups = dilation, groups

    def __call__(self, x: array) -> array:
        y = core.conv1d(x, self.weight, self.stride, self.padding, self.dilation, self.groups)
        return y + self.bias if "bias" in self else y


class Identity(Module):
    """x, whatever else it is made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, x: array) -> array:
        return x


class Dropout(Identity):
    """x: nothing is dropped while inferring."""


class Sequential(Module):
    """Modules and functions, one after the other."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        self.layers = list(modules)

    def __call__(self, x: array) -> array:
        for module in self.layers:
            x = module(x)
        return x
