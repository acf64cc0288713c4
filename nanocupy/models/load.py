"""From a checked checkpoint to a model with its weights in place (mapped, not yet copied)."""

from __future__ import annotations

from typing import Any

from nanocupy import nn
from nanocupy.checkpoint import Checkpoint
from nanocupy.core import array
from nanocupy.models import llama
from nanocupy.utils import tree_flatten

MODELS: dict[str, Any] = {"llama": llama.Model}


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
        nn.quantize(
            model,
            lambda path, _: quantization.for_module(path) if f"{path}.scales" in wanted else None,
        )
    expected = {wanted.get(n, n): a.shape for n, a in tree_flatten(model.parameters())}
    ignored = {n: checkpoint.info(n).shape for n in checkpoint.names() if n not in names}
    if config.tie_word_embeddings and "lm_head.weight" in names:
        ignored["lm_head.weight"] = checkpoint.info("lm_head.weight").shape
    checkpoint.account({**expected, **ignored})
    found = [(n, array(checkpoint.read(wanted[n]))) for n, _ in tree_flatten(model.parameters())]
    return model.load_weights(found)
