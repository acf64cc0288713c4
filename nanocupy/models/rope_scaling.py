"""Rotary positions of a configuration, scaled by its rule: linear, llama3, yarn or longrope."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nanocupy.checkpoint import ModelConfig, RopeConfig
from nanocupy.core import array
from nanocupy.core.recorder.rotary import longest
from nanocupy.nn import Module, RoPE


def make_rope(args: ModelConfig, rope: RopeConfig | None = None) -> Any:
    """Make the rotation of `rope`, by default `args.rope`.

    Dynamic NTK is unscaled up to the model's original length, and an engine has no more positions.
    """
    rope = rope or args.rope
    dims = int(args.head_dim * rope.partial)
    if rope.type == "longrope":
        return LongRoPE(dims, rope)
    if rope.type in ("llama3", "yarn"):
        freqs = {"llama3": llama3_freqs, "yarn": yarn_freqs}[rope.type](dims, rope)
        return RoPE(dims, base=None, freqs=freqs, magnitude=rope.magnitude)
    return RoPE(dims, base=rope.theta, scale=1 / rope.factor if rope.type == "linear" else 1.0)


class LongRoPE(Module):
    """Phi-3's two rotations: one for sequences of up to the original length, one for longer ones.

    An engine takes one of them for all sequences, by its `max_model_len`, since cached keys cannot
    be rotated again. The default is the original length (`ModelConfig.usual_length`) and does not
    depend on free memory, so that a request has the same answer on every machine.
    """

    def __init__(self, dims: int, rope: RopeConfig) -> None:
        super().__init__()
        self.original = rope.original_max_position_embeddings
        self.short, self.long = (
            RoPE(dims, base=None, freqs=plain_freqs(dims, rope) * factors, magnitude=rope.magnitude)
            for factors in (rope.short, rope.long)
        )

    def __call__(self, x: array, offset: Any = 0) -> array:
        rope = self.long if longest(offset, x.shape[2]) > self.original else self.short
        rotated: array = rope(x, offset=offset)
        return rotated


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
