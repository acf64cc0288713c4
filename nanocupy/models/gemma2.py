"""Gemma 2: norms before and after attention and MLP, a gelu in the MLP, embeddings times the root
of their size, scores and logits capped, a window in every other layer."""

from __future__ import annotations

from typing import Any

from nanocupy import core
from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.core.recorder.attention import scaled_dot_product_attention
from nanocupy.models import llama
from nanocupy.nn import RMSNorm, gelu_approx


class Attention(llama.Attention):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        self.scale, self.softcap = args.attention_scale, args.attention_softcap

    def attend(self, q: array, k: array, v: array, mask: Any) -> array:
        return scaled_dot_product_attention(
            q, k, v, scale=self.scale, mask=mask, softcap=self.softcap
        )


class MLP(llama.MLP):
    def __call__(self, x: array) -> array:
        return self.down_proj(gelu_approx(self.gate_proj(x)) * self.up_proj(x))


class TransformerBlock(llama.TransformerBlock):
    attention_class: type[llama.Attention] = Attention
    mlp_class = MLP

    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        self.pre_feedforward_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_feedforward_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        r = self.self_attn(self.input_layernorm(x), mask, cache)
        h = x + self.post_attention_layernorm(r)
        r = self.mlp(self.pre_feedforward_layernorm(h))
        return h + self.post_feedforward_layernorm(r)


class Gemma2Model(llama.LlamaModel):
    block_class: type[llama.TransformerBlock] = TransformerBlock

    def embed(self, tokens: array) -> array:
        return super().embed(tokens) * self.args.hidden_size**0.5


class Model(llama.Model):
    decoder_class: type[llama.LlamaModel] = Gemma2Model

    def head(self, h: array) -> array:
        logits, cap = super().head(h), self.args.logits_softcap
        return core.tanh(logits * (1 / cap)) * cap if cap else logits

    @staticmethod
    def adapt(name: str, value: array) -> array:
        """Norms multiply by 1 + w, and the checkpoint has w."""
        return value.astype(core.float32) + 1 if name.endswith("norm.weight") else value
