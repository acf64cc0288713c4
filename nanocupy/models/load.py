"""From a checked checkpoint to a model with its weights in place (mapped, not yet copied)."""

from __future__ import annotations

from typing import Any

from nanocupy import nn
from nanocupy.checkpoint import Checkpoint
from nanocupy.core import array
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
    """The model of a checkpoint.

    Raises:
        ValueError: one error that names every tensor missing, unexpected or of another shape.
    """
    config = checkpoint.config
    model = MODELS[config.model_type](config)
    names = model.sanitize(checkpoint.names())
    wanted = {ours: theirs for theirs, ours in names.items()}
    quantization = config.quantization
    if quantization:

        def how(path: str, _: nn.Module) -> tuple[int, int] | None:
            theirs = wanted.get(f"{path}.scales")
            return quantization.for_module(theirs.removesuffix(".scales")) if theirs else None

        nn.quantize(model, how)
    expected = {wanted.get(n, n): a.shape for n, a in tree_flatten(model.parameters())}
    ignored = {n: checkpoint.info(n).shape for n in checkpoint.names() if n not in names}
    if config.tie_word_embeddings and "lm_head.weight" in names:
        ignored["lm_head.weight"] = checkpoint.info("lm_head.weight").shape
    checkpoint.account({**expected, **ignored})
    adapt = getattr(model, "adapt", lambda _, value: value)
    parameters = [n for n, _ in tree_flatten(model.parameters())]
    found = [(n, adapt(n, array(checkpoint.read(wanted[n])))) for n in parameters]
    return model.load_weights(found)
