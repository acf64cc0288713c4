"""Phi-3 and Phi-4-mini: Llama with q, k and v in one projection, gate and up in one, perhaps a
window, perhaps a rope of two lengths that turns a part of each head."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models.decoder import LanguageModel, attention, run_layers
from nanocupy.models.rope import make_rope
from nanocupy.nn import Embedding, Linear, Module, RMSNorm, silu


class Attention(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        dim, head_dim = args.hidden_size, args.head_dim
        self.heads, self.kv_heads = args.num_attention_heads, args.num_key_value_heads
        self.scale = head_dim**-0.5
        self.qkv_proj = Linear(dim, (self.heads + 2 * self.kv_heads) * head_dim, bias=False)
        self.o_proj = Linear(self.heads * head_dim, dim, bias=False)
        self.rope = make_rope(args)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        B, L, _ = x.shape
        heads = self.qkv_proj(x).reshape(B, L, self.heads + 2 * self.kv_heads, -1)
        q, k, v = heads.split([self.heads, self.heads + self.kv_heads], axis=2)
        q, k, v = (part.transpose(0, 2, 1, 3) for part in (q, k, v))
        offset = 0 if cache is None else cache.offset
        q, k = self.rope(q, offset=offset), self.rope(k, offset=offset)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        out = attention(q, k, v, scale=self.scale, mask=mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1))


class MLP(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        dim, hidden = args.hidden_size, args.intermediate_size
        self.gate_up_proj = Linear(dim, 2 * hidden, bias=False)
        self.down_proj = Linear(hidden, dim, bias=False)

    def __call__(self, x: array) -> array:
        gate, up = self.gate_up_proj(x).split(2, axis=-1)
        return self.down_proj(silu(gate) * up)


class TransformerBlock(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = MLP(args)
        self.input_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        h = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return h + self.mlp(self.post_attention_layernorm(h))


class Phi3Model(Module):
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
        super().__init__(args, Phi3Model(args))
