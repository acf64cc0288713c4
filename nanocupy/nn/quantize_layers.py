"""Give a model quantised layers: by quantising its weights, or where its checkpoint has codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nanocupy.nn.act_order import ActOrderLinear
from nanocupy.nn.layers import Affine
from nanocupy.nn.module import Module


def quantize(
    model: Module,
    group_size: int | None = None,
    bits: int | None = None,
    *,
    mode: str = "affine",
    quantize_input: bool = False,
    class_predicate: Callable[[str, Module], bool | dict[str, Any]] | None = None,
) -> None:
    """Replace layers by such with codes of their weights, as `mlx.nn.quantize` does.

    The codes are made when they are wanted.

    Args:
        group_size, bits: None: 64 and 4.
        class_predicate: class_predicate(path, layer) says whether, or gives what `to_quantized`
            takes. None: every layer that can be.

    Raises:
        ValueError: a layer that cannot be quantised is wanted so, or its inputs do not divide.
        NotImplementedError: `quantize_input`, or a mode besides "affine".
    """
    if quantize_input or mode != "affine":
        raise NotImplementedError(
            f"[quantize] mode={mode!r}, quantize_input={quantize_input}: only 'affine' weights"
        )
    for path, layer in model.named_modules():
        able = _can_be_coded(layer)
        wanted = able if class_predicate is None else class_predicate(path, layer)
        if wanted and not able:
            raise ValueError(f"[quantize] {path or 'the model'}: {type(layer).__name__} cannot be")
        if wanted:
            how = wanted if isinstance(wanted, dict) else {"group_size": group_size, "bits": bits}
            model.replace(path, layer.to_quantized(**how))


def replace_with_quantized(
    model: Module,
    form_of: Callable[[str, Module], tuple[int, int] | None],
    is_ordered: Callable[[str], bool] = lambda _: False,
) -> None:
    """Replace every layer for which form_of(path, layer) gives (bits, group_size) by one with
    places for codes, which `load_weights` fills.

    Args:
        is_ordered: whether a linear layer's inputs are sorted by their groups.
    """
    for path, layer in model.named_modules():
        if _can_be_coded(layer) and (form := form_of(path, layer)):
            bits, group = form
            if is_ordered(path):
                n, k = layer.dims()
                model.replace(path, ActOrderLinear(k, n, "bias" in layer, group, bits))
            else:
                model.replace(path, layer.coded(group, bits))


def _can_be_coded(layer: Module) -> bool:
    return hasattr(layer, "to_quantized") and not isinstance(layer, Affine)
