"""Rotary positions as a configuration asks for them: default, linear, llama3."""

from __future__ import annotations

import numpy as np

from nanocupy.checkpoint import ModelConfig, RopeConfig
from nanocupy.nn import RoPE


def make_rope(args: ModelConfig) -> RoPE:
    """The rotation that `args.rope` asks for, of halves (as transformers' checkpoints are)."""
    rope = args.rope
    if rope.type == "llama3":
        return RoPE(args.head_dim, base=None, freqs=llama3_freqs(args.head_dim, rope))
    scale = 1 / rope.factor if rope.type == "linear" else 1.0
    return RoPE(args.head_dim, base=rope.theta, scale=scale)


def llama3_freqs(dims: int, rope: RopeConfig) -> np.ndarray:
    """Llama 3's stretch: long wavelengths by `factor`, short ones not. f64 [dims/2]."""
    freqs = rope.theta ** (np.arange(0, dims, 2, dtype=np.float64) / dims)
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
