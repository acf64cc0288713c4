"""Rotary positions of a configuration, scaled by its rule: linear, llama3, yarn or longrope."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig, RopeConfig
from nanocupy.checkpoint.rope_config import llama3_freqs, plain_freqs, yarn_freqs
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
