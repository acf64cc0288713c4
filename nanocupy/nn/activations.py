"""Activations, as `mlx.nn` has them: functions, and modules that call them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.module import Module


def sigmoid(x: array) -> array:
    """1 / (1 + exp(-x))."""
    return core.sigmoid(x)


def tanh(x: array) -> array:
    """The hyperbolic tangent."""
    return core.tanh(x)


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


def elu(x: array, alpha: float = 1.0) -> array:
    """x, or below zero alpha * (exp(x) - 1)."""
    return core.where(x > 0, x, alpha * (core.exp(x) - 1))


def celu(x: array, alpha: float = 1.0) -> array:
    """x, or below zero alpha * (exp(x / alpha) - 1)."""
    return core.maximum(x, 0.0) + alpha * (core.exp(core.minimum(x, 0.0) / alpha) - 1)


def selu(x: array) -> array:
    """`elu` that keeps mean and variance (https://arxiv.org/abs/1706.02515)."""
    return elu(x, 1.67326) * 1.0507


def prelu(x: array, alpha: array) -> array:
    """x, or below zero alpha * x."""
    return core.maximum(0, x) + alpha * core.minimum(0, x)


def hardswish(x: array) -> array:
    """x * relu6(x + 3) / 6."""
    return x * core.minimum(core.maximum(x + 3, 0), 6) / 6


def hard_tanh(x: array, min_val: float = -1.0, max_val: float = 1.0) -> array:
    """x between two bounds."""
    return core.minimum(core.maximum(x, min_val), max_val)


def hard_shrink(x: array, lambd: float = 0.5) -> array:
    """x, or 0 where it is within `lambd` of 0."""
    return core.where(core.abs(x) > lambd, x, 0)


def softshrink(x: array, lambd: float = 0.5) -> array:
    """x moved towards 0 by `lambd`, or 0 where it is within `lambd` of 0."""
    return core.where(core.abs(x) > lambd, x - core.sign(x) * lambd, 0)


def softsign(x: array) -> array:
    """x / (1 + |x|)."""
    return x / (1 + core.abs(x))


def mish(x: array) -> array:
    """x * tanh(softplus(x)) (https://arxiv.org/abs/1908.08681)."""
    return x * core.tanh(softplus(x))


def step(x: array, threshold: float = 0.0) -> array:
    """1 where x >= threshold, else 0."""
    return core.where(x >= threshold, 1, 0)


def glu(x: array, axis: int = -1) -> array:
    """The first half times sigmoid of the second, along an axis."""
    value, gate = core.split(x, 2, axis=axis)
    return value * core.sigmoid(gate)


def leaky_relu(x: array, negative_slope: float = 0.01) -> array:
    """x, or below zero negative_slope * x."""
    return core.maximum(negative_slope * x, x)


def log_sigmoid(x: array) -> array:
    """log(sigmoid(x))."""
    return -softplus(-x)


def softmax(x: array, axis: int = -1) -> array:
    """`core.softmax` along one axis."""
    return core.softmax(x, axis)


def softmin(x: array, axis: int = -1) -> array:
    """softmax(-x)."""
    return core.softmax(-x, axis)


def log_softmax(x: array, axis: int = -1) -> array:
    """log(softmax(x))."""
    # Subtract the largest first: beside large numbers a small logarithm would be rounded away.
    x = x - core.max(x, axis, keepdims=True)
    return x - core.logsumexp(x, axis, keepdims=True)


def gelu(x: array) -> array:
    """x * Phi(x), with the normal distribution function Phi."""
    return x * (1 + core.erf(x / math.sqrt(2))) / 2


def gelu_approx(x: array) -> array:
    """`gelu` approximated by tanh."""
    return core.gelu_approx(x)


def gelu_fast_approx(x: array) -> array:
    """`gelu` approximated by sigmoid."""
    return x * core.sigmoid(1.702 * x)


def _module(name: str, function: Callable[..., array], **options: Any) -> type[Module]:
    """Make a module class that calls the function with options, given in this order."""

    def init(self: Module, *values: Any, **named: Any) -> None:
        Module.__init__(self)
        given = dict(zip(options, values, strict=False)) | named
        if unknown := [*values[len(options) :], *(given.keys() - options.keys())]:
            raise TypeError(f"{name}() has the options {list(options)}, not {unknown}")
        for option, value in {**options, **given}.items():
            setattr(self, option, value)

    def call(self: Module, x: array) -> array:
        return function(x, **{option: getattr(self, option) for option in options})

    about = {"__init__": init, "__call__": call, "__doc__": function.__doc__}
    return type(name, (Module,), {**about, "__module__": __name__})


_PLAIN = {
    "Hardswish": hardswish, "HardTanh": hard_tanh, "LogSigmoid": log_sigmoid,
    "LogSoftmax": log_softmax, "Mish": mish, "ReLU": relu, "ReLU2": relu2, "ReLU6": relu6,
    "SELU": selu, "SiLU": silu, "Sigmoid": sigmoid, "Softmax": softmax, "Softmin": softmin,
    "Softplus": softplus, "Softsign": softsign, "Tanh": tanh,
}  # fmt: skip
globals().update({name: _module(name, function) for name, function in _PLAIN.items()})
CELU, ELU = _module("CELU", celu, alpha=1.0), _module("ELU", elu, alpha=1.0)
GLU, Step = _module("GLU", glu, axis=-1), _module("Step", step, threshold=0.0)
HardShrink = _module("HardShrink", hard_shrink, lambd=0.5)
LeakyReLU = _module("LeakyReLU", leaky_relu, negative_slope=0.01)
Softshrink = _module("Softshrink", softshrink, lambd=0.5)


class PReLU(Module):
    """`prelu` with weights [num_parameters] (one, or one a channel) that start at `init`."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.weight = core.full((num_parameters,), init)

    def __call__(self, x: array) -> array:
        return prelu(x, self.weight)


_FORMS = {"none": gelu, "precise": gelu_approx, "tanh": gelu_approx, "fast": gelu_fast_approx}


class GELU(Module):
    """`gelu`, or an approximation: "precise" or "tanh", or "fast"."""

    def __init__(self, approx: str = "none") -> None:
        super().__init__()
        if approx not in _FORMS:
            raise ValueError(f"[GELU] approx={approx!r}: expected one of {tuple(_FORMS)}")
        self.approx = approx

    def __call__(self, x: array) -> array:
        return _FORMS[self.approx](x)
