"""Mixtral: Mistral with a mixture of experts in place of the MLP."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models import llama
from nanocupy.models.moe import Experts


class TransformerBlock(llama.TransformerBlock):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        del self.mlp
        self.block_sparse_moe = Experts(args)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        h = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return h + self.block_sparse_moe(self.post_attention_layernorm(h))


class MixtralModel(llama.LlamaModel):
    block_class = TransformerBlock


class Model(llama.Model):
    decoder_class = MixtralModel

    @staticmethod
    def sanitize(names: list[str]) -> dict[str, str]:
        """w1, w2 and w3 of the checkpoint are gate, down and up."""
        found = llama.Model.sanitize(names)
        for theirs, ours in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
            found = {n: to.replace(f".{theirs}.", f".{ours}.") for n, to in found.items()}
        return found
