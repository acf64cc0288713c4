"""OLMo 2: Llama with norms after attention and MLP instead of before, and over all of q and k."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models import llama
from nanocupy.nn import RMSNorm


class Attention(llama.Attention):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        self.q_norm = RMSNorm(self.heads * args.head_dim, eps=args.rms_norm_eps)
        self.k_norm = RMSNorm(self.kv_heads * args.head_dim, eps=args.rms_norm_eps)

    def project(self, x: array) -> tuple[array, array, array]:
        B, L, _ = x.shape
        q = self.q_norm(self.q_proj(x)).reshape(B, L, self.heads, -1)
        k = self.k_norm(self.k_proj(x)).reshape(B, L, self.kv_heads, -1)
        return q, k, self.v_proj(x).reshape(B, L, self.kv_heads, -1)


class TransformerBlock(llama.TransformerBlock):
    attention_class = Attention

    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        del self.input_layernorm
        self.post_feedforward_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        h = x + self.post_attention_layernorm(self.self_attn(x, mask, cache))
        return h + self.post_feedforward_layernorm(self.mlp(h))


class Olmo2Model(llama.LlamaModel):
    block_class = TransformerBlock


class Model(llama.Model):
    decoder_class = Olmo2Model
