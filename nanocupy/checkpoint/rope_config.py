"""The rope in config.json (rope_parameters of transformers 5, or rope_theta and rope_scaling of 4)
as a `RopeConfig`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanocupy.checkpoint.json_fields import Fields
from nanocupy.quoting import quoted

ORIGINAL = "original_max_position_embeddings"
ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
    "yarn": (
        *("factor", ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "truncate"),
        *("mscale", "mscale_all_dim"),
    ),
    "longrope": ("factor", ORIGINAL, "attention_factor", "short_factor", "long_factor"),
}
"""The parameters of each supported rope type."""
_OF_ALL_TYPES = ("rope_theta", "partial_rotary_factor")
_COMMON = {*_OF_ALL_TYPES, "rope_type", "type"}


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions: base `theta`, and the scaling of its frequencies.

    Attributes:
        partial: the part of a head that is rotated.
        magnitude: the factor of cosines and sines.
        short, long: longrope's divisors of the frequencies, in sequences of up to the original
            length and in longer ones.
    """

    theta: float
    type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position_embeddings: int = 0
    partial: float = 1.0
    magnitude: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()

    @property
    def has_two_lengths(self) -> bool:
        """Whether short and long sequences are rotated differently."""
        return self.short != self.long


def rope_config(fields: Fields, head_dim: int, partial: bool) -> RopeConfig:
    """The rope of a model with the same in all layers.

    Args:
        fields: of config.json.
        partial: whether a part of a head may be rotated.
    """
    return parse(_parameters(fields), fields, head_dim, partial)


def _parameters(fields: Fields) -> dict[str, Any]:
    """rope_scaling if it is set, else rope_parameters, as in transformers.

    Raises:
        ValueError: rope_theta or the like, only in rope_parameters, would be ignored.
    """
    scaling, parameters = (_object(fields, n) for n in ("rope_scaling", "rope_parameters"))
    if any(isinstance(value, dict) for value in (*scaling.values(), *parameters.values())):
        raise ValueError("rope_parameters per layer type are not supported")
    if not scaling:
        return parameters
    stays = {"partial_rotary_factor": 1.0, **fields.raw, **scaling}
    lost = {
        name: value
        for name in _OF_ALL_TYPES
        if (value := parameters.get(name)) is not None and value != stays[name]
    }
    if lost:
        said = ", ".join(f"{name} {quoted(value)}" for name, value in lost.items())
        raise ValueError(
            f"rope_scaling stands in the place of rope_parameters, and only that says {said}: say "
            "all in rope_parameters, and take rope_scaling out"
        )
    return scaling


def rope_configs_by_kind(fields: Fields, head_dim: int) -> tuple[RopeConfig, RopeConfig]:
    """Gemma 3's ropes: of layers with full attention, of layers with a window."""
    nested = Fields(_object(fields, "rope_parameters"))
    if wrong := set(nested.raw) - {"full_attention", "sliding_attention"}:
        raise ValueError(
            f"rope_parameters {quoted(sorted(wrong))} beside those of the kinds of layers"
        )
    full, sliding = (_object(nested, kind) for kind in ("full_attention", "sliding_attention"))
    everywhere = {"rope_theta": fields.number("rope_theta"), **full}
    local = {"rope_theta": fields.number("rope_local_base_freq"), **sliding}
    return (
        parse(everywhere | _object(fields, "rope_scaling"), fields, head_dim, False),
        parse(local, fields, head_dim, False),
    )


def _object(fields: Fields, name: str) -> dict[str, Any]:
    """A field that is an object; {} where it is missing, null, false or empty."""
    raw = fields.raw.get(name) or {}
    if not isinstance(raw, dict):
        raise ValueError(f"{name} must be an object, got {quoted(raw)}")
    return raw


def parse(raw: dict[str, Any], fields: Fields, head_dim: int, partial: bool) -> RopeConfig:
    """Read an object of rope parameters; missing ones may be in config.json itself."""
    rope, kind = Fields(raw), str(raw.get("rope_type") or raw.get("type") or "default")
    phi3 = fields.raw.get("model_type") == "phi3"
    if phi3 and kind in ("su", "yarn"):  # older names of it
        kind = "longrope"
    if kind not in ROPE_TYPES or (phi3 and kind not in ("default", "longrope")):
        raise ValueError(
            f"rope type {quoted(kind)} is not supported; supported: {', '.join(ROPE_TYPES)}"
        )
    unknown = sorted(n for n in raw if rope.has(n) and n not in {*ROPE_TYPES[kind], *_COMMON})
    if unknown:
        raise ValueError(f"rope parameters {quoted(unknown)} of type {kind!r} are not supported")
    part = rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0))
    dims = int(head_dim * part)
    if (part != 1 and not partial) or part > 1 or dims % 2 or not dims:
        raise ValueError(f"partial_rotary_factor {part!r} is not supported for heads of {head_dim}")
    theta = rope.number("rope_theta", fields.number("rope_theta"))
    special = {"yarn": _yarn, "longrope": _longrope}.get(kind, _plain)
    return RopeConfig(theta, kind, partial=part, **special(rope, fields, kind, dims))


def _plain(rope: Fields, fields: Fields, kind: str, dims: int) -> dict[str, Any]:
    needed: dict[str, Any] = {n: rope.number(n) for n in ROPE_TYPES[kind] if n != ORIGINAL}
    if ORIGINAL in ROPE_TYPES[kind]:
        needed[ORIGINAL] = (fields if fields.has(ORIGINAL) else rope).count(ORIGINAL)
    return needed


def _original(rope: Fields, fields: Fields) -> int:
    """The context before scaling."""
    if fields.has(ORIGINAL):
        return fields.count(ORIGINAL)
    return rope.count(ORIGINAL, fields.count("max_position_embeddings"))


def _yarn(rope: Fields, fields: Fields, kind: str, dims: int) -> dict[str, Any]:
    original = _original(rope, fields)
    factor = rope.number("factor", fields.count("max_position_embeddings") / original)

    def grown(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    magnitude = grown(1.0)
    if rope.has("mscale") and rope.has("mscale_all_dim"):
        magnitude = grown(rope.number("mscale")) / grown(rope.number("mscale_all_dim"))
    return {
        "factor": factor,
        ORIGINAL: original,
        "magnitude": rope.number("attention_factor", magnitude),
        "beta_fast": rope.number("beta_fast", 32.0),
        "beta_slow": rope.number("beta_slow", 1.0),
        "truncate": rope.flag("truncate", True),
    }


def _longrope(rope: Fields, fields: Fields, kind: str, dims: int) -> dict[str, Any]:
    original = _original(rope, fields)
    factor = rope.number("factor", fields.count("max_position_embeddings") / original)
    grown = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return {
        "factor": factor,
        ORIGINAL: original,
        "magnitude": rope.number("attention_factor", grown),
        "short": rope.numbers("short_factor", dims // 2),
        "long": rope.numbers("long_factor", dims // 2),
    }


# ---- frequencies


def plain_freqs(dims: int, rope: RopeConfig) -> np.ndarray:
    """The unscaled divisors of positions. f64 [dims/2]."""
    return np.asarray(rope.theta ** (np.arange(0, dims, 2, dtype=np.float64) / dims))


def llama3_freqs(dims: int, rope: RopeConfig) -> np.ndarray:
    """Llama 3's rule: long wavelengths are scaled by `factor`, short ones not. f64 [dims/2]."""
    freqs = plain_freqs(dims, rope)
    wavelengths = 2 * np.pi * freqs
    longest = rope.original_max_position_embeddings / rope.low_freq_factor
    shortest = rope.original_max_position_embeddings / rope.high_freq_factor
    ramp = (rope.original_max_position_embeddings / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    smooth = 1 / ((1 - ramp) / (rope.factor * freqs) + ramp / freqs)
    out = np.where(wavelengths > longest, freqs * rope.factor, freqs)
    between = (wavelengths <= longest) & (wavelengths >= shortest)
    return np.where(between, smooth, out)


def yarn_freqs(dims: int, rope: RopeConfig) -> np.ndarray:
    """YaRN's rule: dimensions that rotate less than `beta_slow` times in the original context are
    scaled by `factor`, those above `beta_fast` times not, with a ramp between. f64 [dims/2]."""

    def pair_that_rotates(times: float) -> float:
        wavelength = rope.original_max_position_embeddings / times
        return dims * math.log(wavelength / (2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_rotates(rope.beta_fast), pair_that_rotates(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    ramp = np.clip((np.arange(dims // 2) - low) / (high - low or 0.001), 0, 1)
    freqs = plain_freqs(dims, rope)
    return 1 / (ramp / (rope.factor * freqs) + (1 - ramp) / freqs)
