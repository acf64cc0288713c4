"""OLMo 2: norms after attention and MLP instead of before, and over all of q and all of k."""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models.decoder import LanguageModel, attention, run_layers
from nanocupy.models.llama import MLP
from nanocupy.models.rope import make_rope
from nanocupy.nn import Embedding, Linear, Module, RMSNorm


class Attention(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        dim, head_dim, bias = args.hidden_size, args.head_dim, args.attention_bias
        self.heads, self.kv_heads = args.num_attention_heads, args.num_key_value_heads
        self.scale = head_dim**-0.5
        self.q_proj = Linear(dim, self.heads * head_dim, bias=bias)
        self.k_proj = Linear(dim, self.kv_heads * head_dim, bias=bias)
        self.v_proj = Linear(dim, self.kv_heads * head_dim, bias=bias)
        self.o_proj = Linear(self.heads * head_dim, dim, bias=bias)
        self.q_norm = RMSNorm(self.heads * head_dim, eps=args.rms_norm_eps)
        self.k_norm = RMSNorm(self.kv_heads * head_dim, eps=args.rms_norm_eps)
        self.rope = make_rope(args)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        B, L, _ = x.shape
        q = self.q_norm(self.q_proj(x)).reshape(B, L, self.heads, -1).transpose(0, 2, 1, 3)
        k = self.k_norm(self.k_proj(x)).reshape(B, L, self.kv_heads, -1).transpose(0, 2, 1, 3)
        v = self.v_proj(x).reshape(B, L, self.kv_heads, -1).transpose(0, 2, 1, 3)
        offset = 0 if cache is None else cache.offset
        q, k = self.rope(q, offset=offset), self.rope(k, offset=offset)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        out = attention(q, k, v, scale=self.scale, mask=mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1))


class TransformerBlock(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = MLP(args)
        self.post_attention_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_feedforward_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        h = x + self.post_attention_layernorm(self.self_attn(x, mask, cache))
        return h + self.post_feedforward_layernorm(self.mlp(h))


class Olmo2Model(Module):
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
        super().__init__(args, Olmo2Model(args))
