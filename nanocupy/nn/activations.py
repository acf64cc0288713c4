"""Activations, as `mlx.nn` has them."""

from __future__ import annotations

from nanocupy import core
from nanocupy.core import array


def silu(x: array) -> array:
    """x * sigmoid(x)."""
    return core.silu(x)


def gelu_approx(x: array) -> array:
    """x * Phi(x), by the tanh formula."""
    return core.gelu_approx(x)


def softplus(x: array) -> array:
    """log(1 + exp(x))."""
    return core.logaddexp(x, 0)
