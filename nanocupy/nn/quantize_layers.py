"""Replace a model's layers by quantised ones: `mlx.nn.quantize`, and for checkpoints with codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    """Quantise the weights of a model's layers, as `mlx.nn.quantize` does.

    The codes are computed when they are needed.

    Args:
        group_size, bits: None: 64 and 4.
        class_predicate: class_predicate(path, layer) says whether a layer is quantised, or gives
            the arguments of `to_quantized`. None: every layer that can be.

    Raises:
        ValueError: a chosen layer cannot be quantised, or its inputs do not divide into groups.
        NotImplementedError: `quantize_input`, or a mode besides "affine".
    """
    if quantize_input or mode != "affine":
        raise NotImplementedError(
            f"[quantize] mode={mode!r}, quantize_input={quantize_input}: only 'affine' weights"
        )
    for path, layer in model.named_modules():
        able = _is_quantizable(layer)
        wanted = able if class_predicate is None else class_predicate(path, layer)
        if wanted and not able:
            raise ValueError(f"[quantize] {path or 'the model'}: {type(layer).__name__} cannot be")
        if wanted:
            how = wanted if isinstance(wanted, dict) else {"group_size": group_size, "bits": bits}
            model.replace(path, layer.to_quantized(**how))


def replace_with_quantized(
    model: Module,
    form_of: Callable[[str, Module], tuple[int, int] | None],
    is_act_order: Callable[[str], bool] = lambda _: False,
) -> None:
    """Replace layers by empty quantised ones, whose codes `load_weights` then fills in.

    Args:
        form_of: form_of(path, layer) gives (bits, group_size), or None to keep a layer.
        is_act_order: whether a linear layer's inputs are sorted by their groups.
    """
    for path, layer in model.named_modules():
        if _is_quantizable(layer) and (form := form_of(path, layer)):
            bits, group = form
            if is_act_order(path):
                from nanocupy.nn.act_order import ActOrderLinear

                n, k = layer.dims()
                model.replace(path, ActOrderLinear(k, n, "bias" in layer, group, bits))
            else:
                model.replace(path, layer.empty_quantized(group, bits))


def _is_quantizable(layer: Module) -> bool:
    return hasattr(layer, "to_quantized") and not isinstance(layer, Affine)
