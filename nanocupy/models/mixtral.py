"""Mixtral: Mistral with a mixture of experts in place of the MLP."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models.decoder import LanguageModel, run_layers
from nanocupy.models.llama import Attention
from nanocupy.models.moe import Experts
from nanocupy.nn import Embedding, Module, RMSNorm


class TransformerBlock(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(args)
        self.block_sparse_moe = Experts(args)
        self.input_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        h = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return h + self.block_sparse_moe(self.post_attention_layernorm(h))


class MixtralModel(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.args = args
        self.embed_tokens = Embedding(args.vocab_size, args.hidden_size)
        self.layers = [TransformerBlock(args) for _ in range(args.num_hidden_layers)]
        self.norm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, tokens: array, cache: Any = None) -> array:
        h = self.embed_tokens(tokens)
        return self.norm(run_layers(self.layers, h, cache, self.args.windows))


class Model(LanguageModel):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__(args, MixtralModel(args))

    @staticmethod
    def sanitize(names: list[str]) -> dict[str, str]:
        """w1, w2 and w3 are gate, down and up."""
        found = {}
        for name, ours in LanguageModel.sanitize(names).items():
            for theirs, role in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
                ours = ours.replace(f".{theirs}.", f".{role}.")
            found[name] = ours
        return found
