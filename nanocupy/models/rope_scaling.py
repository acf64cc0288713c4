"""Rotary positions as a configuration asks for them, of halves as transformers' checkpoints are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nanocupy.checkpoint import ModelConfig, RopeConfig
from nanocupy.core import array
from nanocupy.core.recorder.rotary import longest
from nanocupy.nn import Module, RoPE


def make_rope(args: ModelConfig, rope: RopeConfig | None = None) -> Any:
    """The rotation that `rope` asks for.

    Args:
        rope: default: `args.rope`.

    Dynamic NTK turns as if unscaled for as many positions as the model was made for, and an engine
    has no more.
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

    An engine takes one of them for good, by the longest sequence that it was asked to have: keys
    that are cached cannot turn anew. Where nobody asks that is the original length
    (`ModelConfig.usual_length`): free memory has no say, so that the same request has the same
    answer on every machine.
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
        turned: array = rope(x, offset=offset)
        return turned


def plain_freqs(dims: int, rope: RopeConfig) -> np.ndarray:
    """What positions are divided by where nothing is scaled. f64 [dims/2]."""
    return np.asarray(rope.theta ** (np.arange(0, dims, 2, dtype=np.float64) / dims))


def llama3_freqs(dims: int, rope: RopeConfig) -> np.ndarray:
    """Llama 3's stretch: long wavelengths by `factor`, short ones not. f64 [dims/2]."""
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
    """YaRN's stretch: by `factor` what turns less than `beta_slow` times in the original context,
    not at all what turns more than `beta_fast` times, a ramp between. f64 [dims/2]."""

    def pair_that_turns(times: float) -> float:
        wavelength = rope.original_max_position_embeddings / times
        return dims * math.log(wavelength / (2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    ramp = np.clip((np.arange(dims // 2) - low) / (high - low or 0.001), 0, 1)
    freqs = plain_freqs(dims, rope)
    return 1 / (ramp / (rope.factor * freqs) + (1 - ramp) / freqs)
