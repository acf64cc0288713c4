"""Each model_type's defaults for config.json, and the fields that it supports."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nanocupy.checkpoint.json_fields import Fields
from nanocupy.quoting import listed, quoted

Windows = tuple[int, ...]
FULL, SLIDING = "full_attention", "sliding_attention"


# ---- each layer's window: to how many tokens it attends, 0 for all


def no_windows(fields: Fields, layers: int) -> Windows:
    return (0,) * layers


def one_window(fields: Fields, layers: int) -> Windows:
    """One window for all layers, if config.json has one."""
    return (fields.count("sliding_window") if fields.has("sliding_window") else 0,) * layers


def optional_window(fields: Fields, layers: int) -> Windows:
    """One window for all layers, if config.json switches it on."""
    on = fields.flag("use_sliding_window", False)
    return one_window(fields, layers) if on else no_windows(fields, layers)


def late_windows(fields: Fields, layers: int) -> Windows:
    """Windows from a layer on, if config.json switches them on (Qwen)."""
    if not fields.flag("use_sliding_window", False):
        return no_windows(fields, layers)
    first = fields.get("max_window_layers", 0)
    if type(first) is not int:
        raise ValueError(f"max_window_layers must be a number of layers, got {quoted(first)}")
    return by_kind(fields, [FULL if i < first else SLIDING for i in range(layers)])


def periodic_windows(fields: Fields, layers: int) -> Windows:
    """Windows in all layers but every n-th (Gemma)."""
    period = fields.count("sliding_window_pattern")
    return by_kind(fields, [SLIDING if i % period else FULL for i in range(1, layers + 1)])


def every_other_window(fields: Fields, layers: int) -> Windows:
    """Windows in every other layer; no other pattern is supported (Gemma 2)."""
    if fields.count("sliding_window_pattern") != 2:
        raise ValueError(
            f"sliding_window_pattern {fields.count('sliding_window_pattern')}: Gemma 2 has 2, "
            "unless layer_types says otherwise"
        )
    return periodic_windows(fields, layers)


def windows_without_rope(fields: Fields, layers: int) -> Windows:
    """Windows in layers without rope, if config.json switches them on (SmolLM3)."""
    if not fields.flag("use_sliding_window", False) or not fields.has("sliding_window"):
        return no_windows(fields, layers)
    return by_kind(fields, [FULL if on else SLIDING for on in layers_with_rope(fields, layers)])


def by_kind(fields: Fields, kinds: list[str]) -> Windows:
    """Windows by the kinds of layers: layer_types, or else `kinds`."""
    window = fields.count("sliding_window")
    return tuple(window if kind == SLIDING else 0 for kind in fields.get("layer_types", kinds))


def layers_with_rope(fields: Fields, layers: int) -> tuple[bool, ...]:
    """SmolLM3's layers with rope: all but every n-th, or those that config.json lists."""
    interval = fields.count("no_rope_layer_interval", 4)
    said = fields.get("no_rope_layers", [(i + 1) % interval != 0 for i in range(layers)])
    if not isinstance(said, list) or len(said) < layers or any(x not in (0, 1) for x in said):
        raise ValueError(f"no_rope_layers must be {layers} times 0 or 1, got {quoted(said)}")
    return tuple(bool(on) for on in said[:layers])


# ---- architectures


@dataclass(frozen=True)
class Architecture:
    """
    Attributes:
        defaults: values of fields that config.json does not have. (One that is null is there.)
        reads: the supported fields that change the maths, beside those of all architectures.
        windows: makes the layers' windows.
        activation: the field that names the activation, and the supported names.
        partial_rope: whether a part of a head may be rotated.
    """

    defaults: Mapping[str, Any]
    reads: frozenset[str] = frozenset()
    windows: Callable[[Fields, int], Windows] = no_windows
    activation: tuple[str, tuple[str, ...]] = ("hidden_act", ("silu", "swish"))
    partial_rope: bool = False


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LLAMA = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
_QWEN = {**_LLAMA, "num_key_value_heads": 32, "sliding_window": 4096}
_GEMMA = {
    **_LLAMA,
    "tie_word_embeddings": True,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_GELU = ("hidden_activation", ("gelu_pytorch_tanh",))
_BIASES = "attention_bias mlp_bias"
_QWEN_WINDOW = "use_sliding_window sliding_window max_window_layers"
_GEMMA_FIELDS = (
    "attention_bias query_pre_attn_scalar final_logit_softcapping sliding_window "
    "sliding_window_pattern hidden_activation"
)

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(_LLAMA, _names(_BIASES)),
    "mistral": Architecture(
        {**_LLAMA, "num_key_value_heads": 8, "sliding_window": 4096},
        _names("sliding_window"),
        one_window,
    ),
    "qwen2": Architecture({**_QWEN, "max_window_layers": 28}, _names(_QWEN_WINDOW), late_windows),
    "qwen3": Architecture(
        {**_QWEN, "head_dim": 128, "max_window_layers": 28},
        _names(f"attention_bias {_QWEN_WINDOW}"),
        late_windows,
    ),
    "gemma2": Architecture(
        {
            **_GEMMA,
            "sliding_window_pattern": 2,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        _names(f"{_GEMMA_FIELDS} attn_logit_softcapping"),
        every_other_window,
        _GELU,
    ),
    "gemma3_text": Architecture(
        {
            **_GEMMA,
            "vocab_size": 262208,
            "num_attention_heads": 8,
            "max_position_embeddings": 131072,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "sliding_window_pattern": 6,
        },
        _names(f"{_GEMMA_FIELDS} rope_local_base_freq"),
        periodic_windows,
        _GELU,
    ),
    "phi3": Architecture(
        {**_LLAMA, "rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
        _names("sliding_window partial_rotary_factor"),
        one_window,
        partial_rope=True,
    ),
    "smollm3": Architecture(
        {**_LLAMA, "num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 2e6},
        _names(f"{_BIASES} no_rope_layers no_rope_layer_interval {_QWEN_WINDOW}"),
        windows_without_rope,
    ),
    "olmo2": Architecture({**_LLAMA, "rms_norm_eps": 1e-5}, _names("attention_bias")),
    "granite": Architecture(
        {**_LLAMA, "attention_multiplier": 1.0},
        _names(
            f"{_BIASES} embedding_multiplier attention_multiplier residual_multiplier "
            "logits_scaling"
        ),
    ),
    "qwen3_moe": Architecture(
        {**_QWEN, "num_key_value_heads": 4, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
        _names(
            "attention_bias use_sliding_window sliding_window max_window_layers num_experts "
            "num_local_experts num_experts_per_tok norm_topk_prob"
        ),
        optional_window,
    ),
    "mixtral": Architecture(
        {
            **_LLAMA,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e6,
            "num_key_value_heads": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
        _names("sliding_window num_local_experts num_experts_per_tok"),
        one_window,
    ),
}
"""Every supported model_type."""

_OF_ALL = _names("rms_norm_eps rope_theta rope_scaling rope_parameters hidden_act")
_OF_THE_MATHS = re.compile(
    "activation|alibi|bias|bidirectional|cap|clip|expert|interleave|lora|multipl|norm|residual"
    "|rope|rotary|scal|sink|softmax|window"
)


def refuse_unknown(model_type: str, raw: Mapping[str, Any]) -> None:
    """Refuse fields that by their names change the maths and are not supported, unless they are
    off: null, false, 0, 1 or empty.

    Raises:
        ValueError: it names every such field.
    """
    known = _OF_ALL | ARCHITECTURES[model_type].reads
    wrong = {
        name: value
        for name, value in raw.items()
        if _OF_THE_MATHS.search(name)
        and not name.startswith("_")
        and name not in known
        and (value is True or value not in (None, False, 0, 1, "", [], {}))
    }
    if wrong:
        said = listed([f"{name} {quoted(value)}" for name, value in wrong.items()])
        raise ValueError(f"{said}: not supported for model_type {model_type!r}")
