"""Granite 3: Llama with multipliers of embeddings, scores, residuals and logits."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models import llama


class Attention(llama.Attention):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        self.scale = args.attention_scale


class TransformerBlock(llama.TransformerBlock):
    attention_class = Attention

    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        self.multiplier = args.residual_multiplier

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        h = x + self.self_attn(self.input_layernorm(x), mask, cache) * self.multiplier
        return h + self.mlp(self.post_attention_layernorm(h)) * self.multiplier


class GraniteModel(llama.LlamaModel):
    block_class = TransformerBlock

    def embed(self, tokens: array) -> array:
        return super().embed(tokens) * self.args.embedding_multiplier


class Model(llama.Model):
    decoder_class = GraniteModel

    def head(self, h: array) -> array:
        return super().head(h) * (1 / self.args.logits_scaling)
