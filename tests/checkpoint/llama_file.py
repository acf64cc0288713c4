"""A Llama in MLX's contract, as somebody else's model file has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn


@dataclass
class ModelArgs:
    raw: dict[str, Any]

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ModelArgs:
        return cls(raw)


class Block(nn.Module):
    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__()
        dim, hidden, eps = raw["hidden_size"], raw["intermediate_size"], raw["rms_norm_eps"]
        self.heads, self.kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
        kv = dim // self.heads * self.kv_heads
        self.self_attn = {
            "q_proj": nn.Linear(dim, dim, bias=False),
            "k_proj": nn.Linear(dim, kv, bias=False),
            "v_proj": nn.Linear(dim, kv, bias=False),
            "o_proj": nn.Linear(dim, dim, bias=False),
        }
        self.mlp = {
            "gate_proj": nn.Linear(dim, hidden, bias=False),
            "up_proj": nn.Linear(dim, hidden, bias=False),
            "down_proj": nn.Linear(hidden, dim, bias=False),
        }
        self.input_layernorm, self.post_attention_layernorm = (nn.RMSNorm(dim, eps) for _ in "ab")
        self.rope = nn.RoPE(dim // self.heads)

    def __call__(self, x: Any, mask: Any, cache: Any) -> Any:
        B, L, _ = x.shape
        y, at = self.input_layernorm(x), self.self_attn
        q = at["q_proj"](y).reshape(B, L, self.heads, -1).transpose(0, 2, 1, 3)
        k = at["k_proj"](y).reshape(B, L, self.kv_heads, -1).transpose(0, 2, 1, 3)
        v = at["v_proj"](y).reshape(B, L, self.kv_heads, -1).transpose(0, 2, 1, 3)
        q, k = self.rope(q, offset=cache.offset), self.rope(k, offset=cache.offset)
        k, v = cache.update_and_fetch(k, v)
        scale = q.shape[-1] ** -0.5
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
        x = x + at["o_proj"](out.transpose(0, 2, 1, 3).reshape(B, L, -1))
        y, mlp = self.post_attention_layernorm(x), self.mlp
        return x + mlp["down_proj"](nn.silu(mlp["gate_proj"](y)) * mlp["up_proj"](y))


class Trunk(nn.Module):
    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(raw["vocab_size"], raw["hidden_size"])
        self.layers = [Block(raw) for _ in range(raw["num_hidden_layers"])]
        self.norm = nn.RMSNorm(raw["hidden_size"], raw["rms_norm_eps"])


class Model(nn.Module):
    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.model = Trunk(args.raw)

    def __call__(self, tokens: Any, cache: Any = None) -> Any:
        h, mask = self.model.embed_tokens(tokens), cache[0].make_mask(tokens.shape[1])
        for layer, own in zip(self.model.layers, cache, strict=True):
            h = layer(h, mask, own)
        return self.model.embed_tokens.as_linear(self.model.norm(h))

    @property
    def layers(self) -> list[Any]:
        return self.model.layers
