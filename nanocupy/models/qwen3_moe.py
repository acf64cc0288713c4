"""Qwen3-MoE: Qwen3 with a mixture of experts in place of the MLP, in all layers or in some."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models.decoder import LanguageModel, run_layers
from nanocupy.models.llama import MLP
from nanocupy.models.moe import Experts
from nanocupy.models.qwen3 import Attention
from nanocupy.nn import Embedding, Module, RMSNorm


class TransformerBlock(Module):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = Experts(args) if args.sparse_layers[layer] else MLP(args)
        self.input_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        h = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return h + self.mlp(self.post_attention_layernorm(h))


class Qwen3MoeModel(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.args = args
        self.embed_tokens = Embedding(args.vocab_size, args.hidden_size)
        self.layers = [TransformerBlock(args, i) for i in range(args.num_hidden_layers)]
        self.norm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, tokens: array, cache: Any = None) -> array:
        h = self.embed_tokens(tokens)
        return self.norm(run_layers(self.layers, h, cache, self.args.windows))


class Model(LanguageModel):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__(args, Qwen3MoeModel(args))
