"""From a checked checkpoint to a model with its weights in place (mapped, not yet copied)."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np

from nanocupy import nn
from nanocupy.checkpoint import Checkpoint, Quantization
from nanocupy.checkpoint.reader import DTYPES
from nanocupy.core import array
from nanocupy.core.array import record
from nanocupy.core.graph import Op
from nanocupy.models import (
    gemma2,
    gemma3,
    granite,
    llama,
    mixtral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    smollm3,
)
from nanocupy.utils import tree_flatten

MODELS: dict[str, Any] = {
    "llama": llama.Model,
    "mistral": llama.Model,
    "qwen2": qwen2.Model,
    "qwen3": qwen3.Model,
    "gemma2": gemma2.Model,
    "gemma3_text": gemma3.Model,
    "phi3": phi3.Model,
    "smollm3": smollm3.Model,
    "olmo2": olmo2.Model,
    "granite": granite.Model,
    "qwen3_moe": qwen3_moe.Model,
    "mixtral": mixtral.Model,
}
"""By model_type. `checkpoint.architectures` says how the configuration of each is read."""


def load(checkpoint: Checkpoint) -> nn.Module:
    """The model of a checkpoint. What has another layout in the file is made when it is packed.

    Raises:
        ValueError: one error that names every tensor missing, unexpected or of another shape.
    """
    config = checkpoint.config
    model = MODELS[config.model_type](config)
    names = model.sanitize(checkpoint.names())
    wanted = {ours: theirs for theirs, ours in names.items()}
    _quantized(model, config.quantization, wanted)
    expected = {wanted.get(n, n): a.shape for n, a in tree_flatten(model.parameters())}
    ignored = {n: checkpoint.info(n).shape for n in checkpoint.names() if n not in names}
    if config.tie_word_embeddings and "lm_head.weight" in names:
        ignored["lm_head.weight"] = checkpoint.info("lm_head.weight").shape
    checkpoint.account({**expected, **ignored, **_no_biases(checkpoint, expected)})
    adapt = getattr(model, "adapt", lambda _, value: value)
    parameters = [n for n, _ in tree_flatten(model.parameters())]
    found = [(n, adapt(n, _parameter(checkpoint, wanted[n]))) for n in parameters]
    return model.load_weights(found)


def _quantized(model: nn.Module, how: Quantization | None, wanted: dict[str, str]) -> None:
    """Give the model quantised layers where the checkpoint has scales.

    Args:
        wanted: names in the checkpoint by names in the model.

    Raises:
        ValueError: inputs of experts are sorted by their groups.
    """
    ordered = {n.removesuffix(".order") for n in wanted if n.endswith(".order")}
    if experts := [path for path in ordered if ".experts." in path]:
        raise ValueError(
            f"{min(experts)}: act-order (desc_act, actorder) is not supported for experts"
        )

    def form(path: str, _: nn.Module) -> tuple[int, int] | None:
        scales = wanted.get(f"{path}.scales")
        return how.for_module(scales.removesuffix(".scales")) if how and scales else None

    nn.quantize(model, form, ordered.__contains__)


def _no_biases(checkpoint: Checkpoint, expected: Container[str]) -> dict[str, tuple[int, ...]]:
    """Biases of zeros, which AutoGPTQ wrote for layers that have none."""
    how = checkpoint.config.quantization
    names = (n for n in checkpoint.names() if n.endswith(".bias") and n not in expected)
    return {
        name: checkpoint.info(name).shape
        for name in names
        if how and name.removesuffix(".bias") in how.overrides and not checkpoint.read(name).any()
    }


_READ = Op("read", lambda *, spec, read: spec, lambda *, spec, read: read())


def _parameter(checkpoint: Checkpoint, name: str) -> array:
    read = checkpoint.later(name)
    if not checkpoint.is_made(name):
        return array(read())
    info = checkpoint.info(name)
    return record(_READ, spec=(info.shape, np.dtype(DTYPES[info.dtype])), read=read)
