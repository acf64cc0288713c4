"""Gemma 3, its language model: Gemma 2 with norms on the heads of q and k in place of caps, a
window in most layers, and those turn by a rope of their own."""

from __future__ import annotations

from typing import Any

from nanocupy import core
from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.models.decoder import LanguageModel, attention, run_layers
from nanocupy.models.rope import make_rope
from nanocupy.nn import Embedding, Linear, Module, RMSNorm, gelu_approx


class Attention(Module):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__()
        dim, head_dim, bias = args.hidden_size, args.head_dim, args.attention_bias
        self.heads, self.kv_heads = args.num_attention_heads, args.num_key_value_heads
        self.scale = args.attention_scale
        self.q_proj = Linear(dim, self.heads * head_dim, bias=bias)
        self.k_proj = Linear(dim, self.kv_heads * head_dim, bias=bias)
        self.v_proj = Linear(dim, self.kv_heads * head_dim, bias=bias)
        self.o_proj = Linear(self.heads * head_dim, dim, bias=bias)
        self.q_norm = RMSNorm(head_dim, eps=args.rms_norm_eps)
        self.k_norm = RMSNorm(head_dim, eps=args.rms_norm_eps)
        self.rope = make_rope(args, args.local_rope if args.window(layer) else args.rope)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        B, L, _ = x.shape
        q = self.q_norm(self.q_proj(x).reshape(B, L, self.heads, -1)).transpose(0, 2, 1, 3)
        k = self.k_norm(self.k_proj(x).reshape(B, L, self.kv_heads, -1)).transpose(0, 2, 1, 3)
        v = self.v_proj(x).reshape(B, L, self.kv_heads, -1).transpose(0, 2, 1, 3)
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
        self.gate_proj = Linear(dim, hidden, bias=False)
        self.up_proj = Linear(dim, hidden, bias=False)
        self.down_proj = Linear(hidden, dim, bias=False)

    def __call__(self, x: array) -> array:
        return self.down_proj(gelu_approx(self.gate_proj(x)) * self.up_proj(x))


class TransformerBlock(Module):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(args, layer)
        self.mlp = MLP(args)
        dim, eps = args.hidden_size, args.rms_norm_eps
        self.input_layernorm = RMSNorm(dim, eps=eps)
        self.post_attention_layernorm = RMSNorm(dim, eps=eps)
        self.pre_feedforward_layernorm = RMSNorm(dim, eps=eps)
        self.post_feedforward_layernorm = RMSNorm(dim, eps=eps)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        r = self.self_attn(self.input_layernorm(x), mask, cache)
        h = x + self.post_attention_layernorm(r)
        r = self.mlp(self.pre_feedforward_layernorm(h))
        return h + self.post_feedforward_layernorm(r)


class Gemma3Model(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.args = args
        self.embed_tokens = Embedding(args.vocab_size, args.hidden_size)
        self.layers = [TransformerBlock(args, i) for i in range(args.num_hidden_layers)]
        self.norm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, tokens: array, cache: Any = None) -> array:
        h = self.embed_tokens(tokens) * self.args.hidden_size**0.5
        return self.norm(run_layers(self.layers, h, cache, self.args.windows))


class Model(LanguageModel):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__(args, Gemma3Model(args))

    def head(self, out: array) -> array:
        logits, cap = super().head(out), self.args.logits_softcap
        return core.tanh(logits * (1 / cap)) * cap if cap else logits

    @staticmethod
    def adapt(name: str, value: array) -> array:
        """Norms multiply by 1 + w, and the checkpoint has w."""
        return value.astype(core.float32) + 1 if name.endswith("norm.weight") else value

    @staticmethod
    def sanitize(names: list[str]) -> dict[str, str]:
        """Also the language model inside one that sees: transformers 4 writes language_model.model,
        5 model.language_model, and what is for images is not wanted."""
        found = {}
        for name in LanguageModel.sanitize(names):
            if "vision_tower." not in name and "multi_modal_projector." not in name:
                ours = name.removeprefix("language_model.")
                found[name] = ours.replace("model.language_model.", "model.", 1)
        return found
