"""Phi-3 and Phi-4-mini: Llama with q, k and v in one projection, gate and up in one, perhaps a
window, perhaps a longrope, which rotates a part of each head."""

from __future__ import annotations

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models import llama
from nanocupy.nn import Linear, Module, silu


class Attention(llama.Attention):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        del self.q_proj, self.k_proj, self.v_proj, self.o_proj
        dim, heads, head_dim = args.hidden_size, self.heads, args.head_dim
        self.qkv_proj = Linear(dim, (heads + 2 * self.kv_heads) * head_dim, bias=False)
        self.o_proj = Linear(heads * head_dim, dim, bias=False)

    def project(self, x: array) -> tuple[array, array, array]:
        B, L, _ = x.shape
        heads = self.qkv_proj(x).reshape(B, L, self.heads + 2 * self.kv_heads, -1)
        q, k, v = heads.split([self.heads, self.heads + self.kv_heads], axis=2)
        return q, k, v


class MLP(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        dim, hidden = args.hidden_size, args.intermediate_size
        self.gate_up_proj = Linear(dim, 2 * hidden, bias=False)
        self.down_proj = Linear(hidden, dim, bias=False)

    def __call__(self, x: array) -> array:
        gate, up = self.gate_up_proj(x).split(2, axis=-1)
        return self.down_proj(silu(gate) * up)


class TransformerBlock(llama.TransformerBlock):
    attention_class = Attention
    mlp_class = MLP


class Phi3Model(llama.LlamaModel):
    block_class = TransformerBlock


class Model(llama.Model):
    decoder_class = Phi3Model
