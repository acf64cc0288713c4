"""Give a model quantised layers where its checkpoint has them."""

from __future__ import annotations

from collections.abc import Callable

from nanocupy.nn.module import Module


def quantize(model: Module, format_of: Callable[[str, Module], tuple[int, int] | None]) -> None:
    """Replace every layer with `to_quantized` for which `format_of(path, layer)` gives a format."""
    for path, layer in list(model.named_modules()):
        if hasattr(layer, "to_quantized") and (form := format_of(path, layer)):
            bits, group = form
            model.replace(path, layer.to_quantized(group, bits))
