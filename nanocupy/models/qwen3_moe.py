"""Qwen3-MoE: Qwen3 with a mixture of experts in place of the MLP, in all layers or in some."""

from __future__ import annotations

from nanocupy.checkpoint import ModelConfig
from nanocupy.models import llama, qwen3
from nanocupy.models.moe import Experts


class TransformerBlock(qwen3.TransformerBlock):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        if args.sparse_layers[layer]:
            self.mlp = Experts(args)


class Qwen3MoeModel(llama.LlamaModel):
    block_class = TransformerBlock


class Model(llama.Model):
    decoder_class = Qwen3MoeModel
