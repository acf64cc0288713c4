"""config.json as a `ModelConfig`, whether transformers 4 or 5 or MLX wrote it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanocupy.checkpoint.architectures import (
    ARCHITECTURES,
    FULL,
    SLIDING,
    Architecture,
    Windows,
    layers_with_rope,
    refuse_unknown,
)
from nanocupy.checkpoint.json_fields import Fields
from nanocupy.checkpoint.quantization import Quantization, read_quantization
from nanocupy.checkpoint.rope_config import RopeConfig, rope_config, rope_configs_by_kind
from nanocupy.files import is_there, read_json, read_json_if_there
from nanocupy.quoting import quoted

MOST_TOKENS = 2**31 - 1  # where vocab_size is missing
LAYERS = EXPERTS = HEAD_DIM = 1 << 14  # at most: more than any model has, and few enough to list
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelConfig:
    """The checked configuration of a model; `raw` is config.json as it was.

    Attributes:
        windows: each layer's window: to how many tokens it attends, 0 for all. Empty: all 0.
        local_rope: the rope of layers with a window, if it is not `rope`.
        rope_layers: for each layer whether it rotates q and k. Empty: all do.
        attention_scale: the factor of scores where it is not 1 / sqrt(head_dim).
        attention_softcap, logits_softcap: c of c * tanh(x / c); 0 for none.
        experts_per_token, expert_size: of a mixture of experts, how many a token takes, and their
            hidden units.
        normalise_experts: whether the weights of a token's experts add up to 1.
        sparse_layers: for each layer whether it is a mixture.
        notes: warnings for the user.
    """

    model_type: str
    vocab_size: int
    max_position_embeddings: int
    dtype: str
    quantization: Quantization | None
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    raw: dict[str, Any] = field(repr=False, compare=False)
    hidden_size: int = 0
    intermediate_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    num_key_value_heads: int = 0
    head_dim: int = 0
    rms_norm_eps: float = 0.0
    rope: RopeConfig = field(default_factory=lambda: RopeConfig(0.0))
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    hidden_act: str = ""
    windows: Windows = ()
    local_rope: RopeConfig | None = None
    rope_layers: tuple[bool, ...] = ()
    attention_scale: float = 1.0
    attention_softcap: float = 0.0
    logits_softcap: float = 0.0
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0
    num_experts: int = 0
    experts_per_token: int = 0
    expert_size: int = 0
    normalise_experts: bool = False
    sparse_layers: tuple[bool, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def window(self, layer: int) -> int:
        """The window of a layer; 0 for none."""
        return self.windows[layer] if self.windows else 0

    @property
    def usual_length(self) -> int:
        """The most positions of a sequence unless the caller asks for more.

        A longrope model answers differently where sequences may be longer than the original length:
        see `models.rope_scaling.LongRoPE`. So that length is for callers who ask for it.
        """
        ropes = [rope for rope in (self.rope, self.local_rope) if rope and rope.has_two_lengths]
        lengths = [rope.original_max_position_embeddings for rope in ropes]
        return min([self.max_position_embeddings, *lengths])


def load_config(folder: str | os.PathLike[str], *, custom_model: bool = False) -> ModelConfig:
    """The configuration of a model folder; ValueError names the field and what is allowed.

    Args:
        custom_model: for a caller's model file, which reads its sizes itself: they are 0 here.
    """
    folder = Path(folder)
    whole, read = read_json(folder / "config.json"), _custom_config if custom_model else _config
    return _read_as(read, whole, folder / "config.json", folder)


def parse_config(whole: dict[str, Any], source: Path) -> ModelConfig:
    """The configuration in `whole`, an object that `source` holds, without other files."""
    return _read_as(_config, whole, source, None)


def _read_as(
    read: Callable[[Path | None, dict[str, Any], dict[str, Any]], ModelConfig],
    whole: dict[str, Any],
    source: Path,
    folder: Path | None,
) -> ModelConfig:
    try:
        return read(folder, whole, _text_model(whole))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def load_generation_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of generation_config.json (temperature, top_p, eos_token_id, ...), no defaults.

    Without such a file, the fields that transformers 5 still reads from config.json.
    """
    folder = Path(folder)
    if is_there(folder / "generation_config.json"):
        raw = read_json(folder / "generation_config.json")
    else:
        whole = read_json_if_there(folder / "config.json")
        raw = {name: whole[name] for name in _GENERATION if name in whole}
    ours = {k: v for k, v in raw.items() if v is not None and not k.startswith("_")}
    ours.pop("transformers_version", None)
    return ours


_GENERATION = (
    *("max_new_tokens", "min_new_tokens", "stop_strings", "min_p", "sequence_bias"),
    *("guidance_scale", "top_h", "penalty_alpha", "dola_layers", "max_time", "token_healing"),
    *("constraints", "force_words_ids", "forced_decoder_ids", "watermarking_config"),
)


_DTYPE = ("dtype", "torch_dtype")
_QUANTIZATION = ("quantization", "quantization_config")
_OUTSIDE = (*_DTYPE, *_QUANTIZATION, "tie_word_embeddings", "eos_token_id", "bos_token_id")


def _text_model(raw: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a configuration of several parts, completed by the outer one.

    As in transformers the outer dtype is that of all parts, and the end tokens of both parts count.
    """
    inner = raw.get("text_config")
    if not isinstance(inner, dict) or str(raw.get("model_type")) in ARCHITECTURES:
        return raw
    outer = {name: raw[name] for name in _OUTSIDE if raw.get(name) is not None}
    for name in _QUANTIZATION:
        if inner.get(name) and outer.get(name, inner[name]) != inner[name]:
            raise ValueError(f"{name} says one thing in text_config and another beside it")
    if any(name in outer for name in _DTYPE):
        inner = {name: value for name, value in inner.items() if name not in _DTYPE}
    own = {name: value for name, value in inner.items() if value is not None or name not in outer}
    ends = [*_as_list(outer.get("eos_token_id")), *_as_list(own.get("eos_token_id"))]
    return {**outer, **own, "eos_token_id": ends}


def _as_list(said: Any) -> list[Any]:
    """A list of one or many; None is an empty list."""
    if said is None:
        return []
    return said if isinstance(said, list) else [said]


def _config(folder: Path | None, whole: dict[str, Any], raw: dict[str, Any]) -> ModelConfig:
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ValueError(
            f"model_type {quoted(model_type)} is not supported; "
            f"supported: {', '.join(ARCHITECTURES)}"
        )
    refuse_unknown(model_type, raw)
    arch = ARCHITECTURES[model_type]
    fields = Fields({**arch.defaults, **raw})
    heads, hidden = fields.count("num_attention_heads"), fields.count("hidden_size")
    kv_heads = fields.count("num_key_value_heads", heads)
    if hidden % heads and not fields.has("head_dim"):
        raise ValueError(
            f"hidden_size {hidden} is no multiple of num_attention_heads {heads}, and there is no "
            "head_dim"
        )
    head_dim = fields.count("head_dim", hidden // heads, most=HEAD_DIM)
    if heads % kv_heads or head_dim % 2:
        raise ValueError(
            f"num_attention_heads {heads} must be a multiple of num_key_value_heads {kv_heads}, "
            f"and head_dim {head_dim} even"
        )
    vocab_size, layers = fields.count("vocab_size"), fields.count("num_hidden_layers", most=LAYERS)
    named, activations = arch.activation
    return ModelConfig(
        **_common(folder, whole, fields, vocab_size),
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps"),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
        hidden_act=fields.choice((named,), activations, activations[0]),
        windows=_windows(fields, arch, layers),
        **_positions(fields, arch, head_dim, layers),
        **_scales(fields),
        **(_experts(fields, layers) if "num_experts_per_tok" in arch.reads else {}),
    )


def _common(
    folder: Path | None, whole: dict[str, Any], fields: Fields, vocab_size: int
) -> dict[str, Any]:
    """The attributes that do not depend on the architecture."""
    return {
        "model_type": str(fields.raw.get("model_type")),
        "vocab_size": vocab_size,
        "dtype": fields.choice(_DTYPE, DTYPES, "float32"),
        "quantization": read_quantization(fields.raw),
        "eos_token_ids": _eos(folder, fields.raw, vocab_size),
        "bos_token_id": _bos(folder, fields.raw, vocab_size),
        "raw": whole,
    }


_LONGEST = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")


def _custom_config(folder: Path | None, whole: dict[str, Any], raw: dict[str, Any]) -> ModelConfig:
    """What the engine must know beside the network itself."""
    fields = Fields(raw)
    longest = next((name for name in _LONGEST if fields.has(name)), _LONGEST[0])
    common = _common(folder, whole, fields, fields.count("vocab_size", MOST_TOKENS))
    return ModelConfig(**common, max_position_embeddings=fields.count(longest))


def _windows(fields: Fields, arch: Architecture, layers: int) -> Windows:
    """Each layer's window; layer_types must say the same, if it is there."""
    kinds = fields.get("layer_types", [FULL] * layers)
    known = isinstance(kinds, list) and all(kind in (FULL, SLIDING) for kind in kinds)
    if not known or len(kinds) != layers:
        raise ValueError(
            f"layer_types must be {layers} times {FULL!r} or {SLIDING!r}: {quoted(kinds)}"
        )
    windows = arch.windows(fields, layers)
    if fields.has("layer_types") and kinds != [SLIDING if w else FULL for w in windows]:
        raise ValueError(f"layer_types {quoted(kinds)} is not supported with windows of {windows}")
    return windows if any(windows) else ()


def _positions(fields: Fields, arch: Architecture, head_dim: int, layers: int) -> dict[str, Any]:
    """The ropes of the layers, and the longest context."""
    found: dict[str, Any] = {}
    if "rope_local_base_freq" in arch.reads:
        found["rope"], found["local_rope"] = rope_configs_by_kind(fields, head_dim)
    else:
        found["rope"] = rope_config(fields, head_dim, arch.partial_rope)
    if "no_rope_layers" in arch.reads:
        found["rope_layers"] = layers_with_rope(fields, layers)
    rope, positions = found["rope"], fields.count("max_position_embeddings")
    if rope.type == "yarn":  # added by hand to a config.json that keeps the original context
        positions = max(positions, int(rope.factor * rope.original_max_position_embeddings))
    return {**found, "max_position_embeddings": positions}


def _scales(fields: Fields) -> dict[str, Any]:
    """The multipliers of Gemma and Granite, and Gemma's caps."""
    names = {
        "attention_softcap": "attn_logit_softcapping",
        "logits_softcap": "final_logit_softcapping",
        "embedding_multiplier": "embedding_multiplier",
        "residual_multiplier": "residual_multiplier",
        "logits_scaling": "logits_scaling",
        "attention_scale": "attention_multiplier",
    }
    found = {ours: fields.number(n) for ours, n in names.items() if fields.has(n)}
    if fields.has("query_pre_attn_scalar"):
        found["attention_scale"] = fields.number("query_pre_attn_scalar") ** -0.5
    return found


def _experts(fields: Fields, layers: int) -> dict[str, Any]:
    """The mixture of experts: in all layers (Mixtral), or in every n-th but the listed (Qwen)."""
    names = [name for name in ("num_experts", "num_local_experts") if fields.has(name)]
    named = names[0] if names else "num_local_experts"
    count, each = fields.count(named, most=EXPERTS), fields.count("num_experts_per_tok")
    if any(fields.count(name) != count for name in names):
        raise ValueError(
            f"num_experts {count}, and num_local_experts {fields.count('num_local_experts')}: "
            "which of them?"
        )
    if each > count:
        raise ValueError(f"num_experts_per_tok {each} must be at most {named} {count}")
    step, without = fields.count("decoder_sparse_step", 1), fields.get("mlp_only_layers", [])
    if not isinstance(without, list) or any(type(i) is not int for i in without):
        raise ValueError(f"mlp_only_layers must be numbers of layers, got {quoted(without)}")
    return {
        "num_experts": count,
        "experts_per_token": each,
        "expert_size": fields.count("moe_intermediate_size", fields.count("intermediate_size")),
        "normalise_experts": fields.flag("norm_topk_prob", False),
        "sparse_layers": tuple((i + 1) % step == 0 and i not in without for i in range(layers)),
    }


def _eos(folder: Path | None, raw: Mapping[str, Any], vocab_size: int) -> tuple[int, ...]:
    """The end tokens of all files, by their ids."""
    generation, tokenizer = _in_other_files(folder, "eos_token")
    ids = [i for said in (generation, raw.get("eos_token_id"), tokenizer) for i in _as_list(said)]
    return tuple(dict.fromkeys(_token(i, "eos_token_id", vocab_size) for i in ids))


def _bos(folder: Path | None, raw: Mapping[str, Any], vocab_size: int) -> int | None:
    for said in (raw.get("bos_token_id"), *_in_other_files(folder, "bos_token")):
        if said is not None:
            return _token(said, "bos_token_id", vocab_size)
    return None


def _in_other_files(folder: Path | None, role: str) -> tuple[Any, int | None]:
    """A token's id in generation_config.json, and in tokenizer_config.json."""
    if folder is None:
        return None, None
    return load_generation_config(folder).get(f"{role}_id"), _tokenizer_id(folder, role)


def _token(value: object, name: str, vocab_size: int) -> int:
    if type(value) is not int or not 0 <= value < vocab_size:
        raise ValueError(
            f"{name} must be a token below vocab_size {vocab_size}, got {quoted(value)}"
        )
    return value


def _tokenizer_id(folder: Path, role: str) -> int | None:
    """The id of the token with a role in tokenizer_config.json."""
    settings = read_json_if_there(folder / "tokenizer_config.json")
    named = settings.get(role)
    text = named.get("content") if isinstance(named, dict) else named
    added = settings.get("added_tokens_decoder")
    for i, token in added.items() if isinstance(added, dict) else ():
        if text is not None and isinstance(token, dict) and token.get("content") == text:
            return int(i)
    return None
