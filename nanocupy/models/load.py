"""Load a model from a checkpoint: its weights are mapped, and not copied yet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module

from nanocupy import nn
from nanocupy.checkpoint import Checkpoint, Quantization
from nanocupy.checkpoint.quantization import Form
from nanocupy.models import llama
from nanocupy.models.checkpoint_arrays import checkpoint_array, unused_biases
from nanocupy.utils import tree_flatten

MODELS = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "granite": "granite",
    "qwen3_moe": "qwen3_moe",
    "mixtral": "mixtral",
}
"""The module of each model_type, imported when a model is made. How the configuration of each is
read: `checkpoint.architectures`."""
_NUMBERED = re.compile(r"\b(layers|experts)\.(\d{1,9})\.")


def model_class(model_type: str) -> type[llama.Model]:
    """The `Model` class of a model_type."""
    found: type[llama.Model] = import_module(f"nanocupy.models.{MODELS[model_type]}").Model
    return found


def load(checkpoint: Checkpoint, quantize: Form | None = None) -> nn.Module:
    """Load the model of a checkpoint. Weights in other layouts are converted when they are packed.

    Args:
        quantize: (bits, group_size): quantise floats as `models.quantize_checkpoint` does.

    Raises:
        ValueError: one error that names every tensor missing, unexpected or of another shape;
            or the checkpoint is quantised already.
    """
    model, wanted = match(checkpoint)
    names = [n for n, _ in tree_flatten(model.parameters())]
    arrays = [(n, model.adapt(n, checkpoint_array(checkpoint, wanted[n]))) for n in names]
    model.load_weights(arrays)
    if quantize:
        forms = to_quantize(checkpoint, model, quantize)
        how = {p: {"bits": bits, "group_size": size} for p, (bits, size) in forms.items()}
        nn.quantize(model, class_predicate=lambda path, _: how.get(path, False))
    return model


def match(checkpoint: Checkpoint) -> tuple[llama.Model, dict[str, str]]:
    """Make the model of a checkpoint, without weights; return it, and each weight's name in the
    checkpoint by its name in the model.

    Raises:
        ValueError: one error that names every tensor missing, unexpected or of another shape.
    """
    config = checkpoint.config
    make = model_class(config.model_type)
    names = make.sanitize(checkpoint.names())
    _check_counts(checkpoint, names.values())
    model = make(config)
    wanted = {ours: theirs for theirs, ours in names.items()}
    _add_quantized(model, config.quantization, wanted)
    expected = {wanted.get(n, n): a.shape for n, a in tree_flatten(model.parameters())}
    ignored = {n: checkpoint.info(n).shape for n in checkpoint.names() if n not in names}
    if config.tie_word_embeddings:  # a head that is there is the embedding once more
        ignored |= {n: checkpoint.info(n).shape for n in names if names[n].startswith("lm_head.")}
    checkpoint.account({**expected, **ignored, **unused_biases(checkpoint, expected)})
    return model, wanted


def _check_counts(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    """Compare config.json's numbers of layers and experts with the tensors, before any is made.

    Raises:
        ValueError: there are more than the tensors are for.
    """
    config, found = checkpoint.config, {"layers": 0, "experts": 0}
    for name in names:
        for what, number in _NUMBERED.findall(name):
            found[what] = max(found[what], int(number) + 1)
    said = {"layers": config.num_hidden_layers, "experts": config.num_experts}
    for what, count in said.items():
        if count > found[what]:
            raise ValueError(
                f"{checkpoint.folder}: config.json says {count:,} {what}, and there are tensors of "
                f"{found[what]:,}"
            )


def to_quantize(checkpoint: Checkpoint, model: nn.Module, form: Form) -> dict[str, Form]:
    """Choose the layers of a float model to quantise: those whose inputs divide into groups, but
    not the routers of experts.

    Raises:
        ValueError: the checkpoint is quantised already, or there is no such layer.
    """
    layers = [(p, layer) for p, layer in model.named_modules() if hasattr(layer, "to_quantized")]
    if codes := [path for path, layer in layers if "scales" in layer]:
        raise ValueError(
            f"[quantize] {checkpoint.folder} is quantised already ({codes[0]}, say): take it as it "
            "is, or give a model of floats"
        )
    wide = [p for p, layer in layers if layer.dims()[1] % form[1] == 0 and not p.endswith(".gate")]
    if not wide:
        raise ValueError(
            f"[quantize] {checkpoint.folder} has no layer whose inputs divide into groups of "
            f"{form[1]}"
        )
    return dict.fromkeys(wide, form)


def _add_quantized(
    model: nn.Module, quantization: Quantization | None, wanted: dict[str, str]
) -> None:
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
        if not quantization or not scales:
            return None
        return quantization.for_module(scales.removesuffix(".scales"))

    nn.replace_with_quantized(model, form, ordered.__contains__)
