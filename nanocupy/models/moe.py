"""The mixture of experts of Mixtral and Qwen3-MoE, in place of the MLP."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.core.recorder.experts import dense_experts, packed_experts
from nanocupy.kernels.experts import Expert
from nanocupy.nn import Linear, Module


class GatedMLP(Module):
    """The weights of one expert; `Experts` computes with them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = Linear(dim, hidden, bias=False)
        self.up_proj = Linear(dim, hidden, bias=False)
        self.down_proj = Linear(hidden, dim, bias=False)


class Experts(Module):
    """A router `gate`, and experts, of which each token takes the few with the highest logits."""

    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.chosen, self.normalised = args.experts_per_token, args.normalise_experts
        self.gate = Linear(args.hidden_size, args.num_experts, bias=False)
        hidden = args.expert_size
        self.experts = [GatedMLP(args.hidden_size, hidden) for _ in range(args.num_experts)]

    def __call__(self, x: array) -> array:
        logits, how = self.gate(x), (self.chosen, self.normalised)
        layers: list[Any] = [(e.gate_proj, e.up_proj, e.down_proj) for e in self.experts]
        if self.gate.packed is not None:
            packed = [Expert(*(layer.packed for layer in each)) for each in layers]
            return packed_experts(x, logits, packed, *how)
        dense = [tuple(layer.dense() for layer in each) for each in layers]
        return dense_experts(x, logits, dense, *how)
