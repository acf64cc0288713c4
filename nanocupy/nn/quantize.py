"""Give a model quantised layers: where its checkpoint has them, or by quantising its weights."""

from __future__ import annotations

from collections.abc import Callable

from nanocupy import core
from nanocupy.nn.module import Module
from nanocupy.nn.ordered import OrderedLinear


def quantize(
    model: Module,
    format_of: Callable[[str, Module], tuple[int, int] | None],
    is_ordered: Callable[[str], bool] = lambda _: False,
) -> None:
    """Replace every layer with `to_quantized` for which `format_of(path, layer)` gives a format.

    Args:
        is_ordered: whether a linear layer's inputs are sorted by their groups.
    """
    for path, layer in list(model.named_modules()):
        if hasattr(layer, "to_quantized") and (form := format_of(path, layer)):
            bits, group = form
            if is_ordered(path):
                n, k = layer.dims()
                model.replace(path, OrderedLinear(k, n, "bias" in layer, group, bits))
            else:
                model.replace(path, layer.to_quantized(group, bits))


def quantize_weights(
    model: Module, format_of: Callable[[str, Module], tuple[int, int] | None]
) -> None:
    """Replace layers as `quantize` does, with codes of the weights they have.

    They are made when they are wanted.
    """
    for path, layer in list(model.named_modules()):
        if hasattr(layer, "to_quantized") and (form := format_of(path, layer)):
            bits, group = form
            made = layer.to_quantized(group, bits)
            made.weight, made.scales, made.biases = core.quantize(layer.weight, group, bits)
            if "bias" in layer:
                made.bias = layer.bias
            model.replace(path, made)
