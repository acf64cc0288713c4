"""config.json, normalised: one spelling for what transformers 4 and 5 and MLX write differently."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanocupy.checkpoint.jsonfile import read_json, read_json_if_there

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Architecture:
    """What a model_type means where config.json is silent."""

    tie_word_embeddings: bool
    hidden_acts: tuple[str, ...] = ("silu",)
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0


ARCHITECTURES = {"llama": Architecture(tie_word_embeddings=False)}

ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
"""The parameters that each supported rope type needs."""


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions: base `theta`, and how its frequencies are scaled."""

    theta: float
    type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position_embeddings: int = 0


@dataclass(frozen=True)
class Quantization:
    """MLX's config["quantization"]: a default, and modules that differ (None: not quantised)."""

    bits: int
    group_size: int
    overrides: dict[str, tuple[int, int] | None] = field(default_factory=dict)

    def for_module(self, path: str) -> tuple[int, int] | None:
        """(bits, group_size) of a module, if its weight is quantised at all."""
        return self.overrides.get(path, (self.bits, self.group_size))


@dataclass(frozen=True)
class ModelConfig:
    """What the model code needs to know, checked; `raw` is config.json as it was."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope: RopeConfig
    max_position_embeddings: int
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    hidden_act: str
    dtype: str
    quantization: Quantization | None
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    raw: dict[str, Any] = field(repr=False, compare=False)


def load_config(folder: str | os.PathLike[str]) -> ModelConfig:
    """The configuration of a model folder; ValueError names the field and what is allowed."""
    folder = Path(folder)
    whole = read_json(folder / "config.json")
    try:
        return _config(folder, whole, _Fields(_text_model(whole)))
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error


def load_generation_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What generation_config.json says (temperature, top_p, eos_token_id, ...), no defaults."""
    raw = read_json_if_there(Path(folder) / "generation_config.json")
    ours = {k: v for k, v in raw.items() if v is not None and not k.startswith("_")}
    ours.pop("transformers_version", None)
    return ours


def _text_model(raw: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a configuration that has one inside."""
    inner = raw.get("text_config")
    if not isinstance(inner, dict) or str(raw.get("model_type")) in ARCHITECTURES:
        return raw
    outer = ("tie_word_embeddings", "quantization", "quantization_config", "dtype", "torch_dtype")
    return {k: raw[k] for k in outer if k in raw} | inner


def _config(folder: Path, whole: dict[str, Any], fields: _Fields) -> ModelConfig:
    model_type = fields.raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ValueError(
            f"model_type {model_type!r} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    arch = ARCHITECTURES[model_type]
    heads, hidden = fields.count("num_attention_heads"), fields.count("hidden_size")
    kv_heads = fields.count("num_key_value_heads", heads)
    head_dim = fields.count("head_dim", hidden // heads)
    if heads % kv_heads or head_dim % 2:
        raise ValueError(
            f"num_attention_heads {heads} must be a multiple of num_key_value_heads {kv_heads}, "
            f"and head_dim {head_dim} even"
        )
    vocab_size, positions = fields.count("vocab_size"), fields.count("max_position_embeddings")
    return ModelConfig(
        model_type=model_type,
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        num_hidden_layers=fields.count("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocab_size,
        rms_norm_eps=fields.number("rms_norm_eps", arch.rms_norm_eps),
        rope=_rope(fields, arch),
        max_position_embeddings=positions,
        tie_word_embeddings=fields.flag("tie_word_embeddings", arch.tie_word_embeddings),
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
        hidden_act=fields.choice(("hidden_act",), arch.hidden_acts, arch.hidden_acts[0]),
        dtype=fields.choice(("dtype", "torch_dtype"), DTYPES, "float32"),
        quantization=_quantization(fields.raw),
        eos_token_ids=_eos(folder, fields.raw, vocab_size),
        bos_token_id=_bos(folder, fields.raw, vocab_size),
        raw=whole,
    )


@dataclass(frozen=True)
class _Fields:
    """Typed look-ups in a JSON object. A field that is null counts as absent."""

    raw: Mapping[str, Any]

    def count(self, name: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self._get(name, default)
        if type(value) is not int or not 0 < value < 1 << 31:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self._get(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self._get(name, default)
        if type(value) is not bool:
            raise ValueError(f"{name} must be true or false, got {value!r}")
        return value

    def choice(self, names: tuple[str, ...], allowed: tuple[str, ...], default: str) -> str:
        """One of the strings `allowed`, under the first of `names` that is there."""
        value = next((self.raw[n] for n in names if self.raw.get(n) is not None), default)
        if value not in allowed:
            raise ValueError(f"{names[0]} {value!r} is not supported; supported: {allowed}")
        return str(value)

    def _get(self, name: str, default: Any) -> Any:
        value = self.raw.get(name)
        if value is None and default is None:
            raise ValueError(f"{name} is missing")
        return default if value is None else value


def _rope(fields: _Fields, arch: Architecture) -> RopeConfig:
    """transformers 5's rope_parameters, or 4's rope_theta and rope_scaling."""
    raw = fields.raw.get("rope_parameters") or fields.raw.get("rope_scaling") or {}
    if not isinstance(raw, dict):
        raise ValueError(f"rope_parameters must be an object, got {raw!r}")
    if any(isinstance(value, dict) for value in raw.values()):
        raise ValueError("rope_parameters per layer type are not supported")
    rope = _Fields(raw)
    kind = str(raw.get("rope_type") or raw.get("type") or "default")
    if kind not in ROPE_TYPES:
        raise ValueError(f"rope type {kind!r} is not supported; supported: {', '.join(ROPE_TYPES)}")
    for partial in (raw.get("partial_rotary_factor"), fields.raw.get("partial_rotary_factor")):
        if partial not in (None, 1, 1.0):
            raise ValueError(f"partial_rotary_factor {partial!r} is not supported; only 1 is")
    theta = rope.number("rope_theta", fields.number("rope_theta", arch.rope_theta))
    needed = {name: rope.number(name) for name in ROPE_TYPES[kind] if "positions" not in name}
    original = "original_max_position_embeddings"
    if original in ROPE_TYPES[kind]:
        needed[original] = rope.count(original)
    return RopeConfig(theta, kind, **needed)  # type: ignore[arg-type]


def _quantization(raw: Mapping[str, Any]) -> Quantization | None:
    """MLX's "quantization" (also written as "quantization_config" by it)."""
    found = raw.get("quantization") or raw.get("quantization_config")
    if not found:
        return None
    if not isinstance(found, dict):
        raise ValueError(f"quantization must be an object, got {found!r}")
    if method := found.get("quant_method"):
        raise ValueError(f"quantization method {method!r} is not supported; MLX's affine is")
    bits, group_size = _format(found)
    overrides = {
        path: _format(value) if isinstance(value, dict) else None
        for path, value in found.items()
        if isinstance(value, dict) or value is False
    }
    return Quantization(bits, group_size, overrides)


def _format(raw: Mapping[str, Any]) -> tuple[int, int]:
    bits, group_size, mode = raw.get("bits"), raw.get("group_size"), raw.get("mode", "affine")
    if mode != "affine" or bits not in (4, 8) or group_size not in (32, 64, 128):
        raise ValueError(
            f"quantization mode {mode!r} with bits {bits!r} in groups of {group_size!r} is not "
            f"supported; 'affine' with 4 or 8 bits in groups of 32, 64 or 128 is"
        )
    return int(bits), int(group_size)


def _eos(folder: Path, raw: Mapping[str, Any], vocab_size: int) -> tuple[int, ...]:
    """Every token that ends an answer, from the first file that says so."""
    generation = load_generation_config(folder).get("eos_token_id")
    for said in (generation, raw.get("eos_token_id"), _tokenizer_id(folder, "eos_token")):
        if said is not None:
            ids = said if isinstance(said, list) else [said]
            return tuple(dict.fromkeys(_token(i, "eos_token_id", vocab_size) for i in ids))
    return ()


def _bos(folder: Path, raw: Mapping[str, Any], vocab_size: int) -> int | None:
    generation = load_generation_config(folder).get("bos_token_id")
    for said in (raw.get("bos_token_id"), generation, _tokenizer_id(folder, "bos_token")):
        if said is not None:
            return _token(said, "bos_token_id", vocab_size)
    return None


def _token(value: object, name: str, vocab_size: int) -> int:
    if type(value) is not int or not 0 <= value < vocab_size:
        raise ValueError(f"{name} must be a token below vocab_size {vocab_size}, got {value!r}")
    return value


def _tokenizer_id(folder: Path, role: str) -> int | None:
    """The id of the token that tokenizer_config.json names for a role."""
    settings = read_json_if_there(folder / "tokenizer_config.json")
    named = settings.get(role)
    text = named.get("content") if isinstance(named, dict) else named
    added = settings.get("added_tokens_decoder")
    for i, token in added.items() if isinstance(added, dict) else ():
        if text is not None and isinstance(token, dict) and token.get("content") == text:
            return int(i)
    return None
