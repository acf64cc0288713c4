"""Qwen3: Llama with norms on the heads of q and k, and windows in late layers if they are switched
on."""

from __future__ import annotations

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models import llama
from nanocupy.nn import RMSNorm


class Attention(llama.Attention):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        self.q_norm = RMSNorm(args.head_dim, eps=args.rms_norm_eps)
        self.k_norm = RMSNorm(args.head_dim, eps=args.rms_norm_eps)

    def project(self, x: array) -> tuple[array, array, array]:
        q, k, v = super().project(x)
        return self.q_norm(q), self.k_norm(k), v


class TransformerBlock(llama.TransformerBlock):
    attention_class = Attention


class Qwen3Model(llama.LlamaModel):
    block_class = TransformerBlock


class Model(llama.Model):
    decoder_class = Qwen3Model
