"""Activations, as `mlx.nn` has them: functions, and modules that are nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.module import Module

sigmoid, tanh = core.sigmoid, core.tanh


def silu(x: array) -> array:
    """x * sigmoid(x)."""
    return core.silu(x)


def softplus(x: array) -> array:
    """log(1 + exp(x))."""
    return core.logaddexp(x, 0)


def relu(x: array) -> array:
    """max(x, 0)."""
    return core.maximum(x, 0)


def relu2(x: array) -> array:
    """relu(x)^2."""
    return core.square(relu(x))


def relu6(x: array) -> array:
    """min(relu(x), 6)."""
    return core.minimum(relu(x), 6.0)


def leaky_relu(x: array, negative_slope: float = 0.01) -> array:
    """x, or below zero `negative_slope` of it."""
    return core.maximum(negative_slope * x, x)


def log_sigmoid(x: array) -> array:
    """log(sigmoid(x))."""
    return -softplus(-x)


def softmax(x: array, axis: int = -1) -> array:
    """`core.softmax` along one axis."""
    return core.softmax(x, axis)


def log_softmax(x: array, axis: int = -1) -> array:
    """log(softmax(x))."""
    return x - core.logsumexp(x, axis, keepdims=True)


def gelu(x: array) -> array:
    """x times the normal distribution up to x."""
    return x * (1 + core.erf(x / math.sqrt(2))) / 2


def gelu_approx(x: array) -> array:
    """`gelu` by tanh."""
    return core.gelu_approx(x)


def gelu_fast_approx(x: array) -> array:
    """`gelu` by sigmoid."""
    return x * core.sigmoid(1.702 * x)


def _module(name: str, function: Callable[[array], array]) -> type[Module]:
    def call(self: Module, x: array) -> array:
        return function(x)

    return type(name, (Module,), {"__call__": call, "__doc__": function.__doc__})


ReLU, ReLU2, ReLU6 = _module("ReLU", relu), _module("ReLU2", relu2), _module("ReLU6", relu6)
SiLU, Sigmoid, Tanh = _module("SiLU", silu), _module("Sigmoid", sigmoid), _module("Tanh", tanh)
Softmax, Softplus = _module("Softmax", softmax), _module("Softplus", softplus)


_FORMS = {
    "none": gelu,
    "precise": gelu_approx,
    "tanh": gelu_approx,
    "fast": gelu_fast_approx,
}


class GELU(Module):
    """`gelu`, or an approximation: "precise" or "tanh", or "fast"."""

    def __init__(self, approx: str = "none") -> None:
        super().__init__()
        if approx not in _FORMS:
            raise ValueError(f"[GELU] approx={approx!r}: expected one of {tuple(_FORMS)}")
        self.approx = approx

    def __call__(self, x: array) -> array:
        return _FORMS[self.approx](x)
