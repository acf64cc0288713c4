"""Llama (SmolLM2, TinyLlama, ...) and Mistral: pre-norm blocks of grouped-query attention, with a
sliding window in Mistral, and a gated MLP. Other architectures are subclasses that override what
differs.

The contract is MLX's: `model(tokens, cache)` gives logits; the cache knows the position (`offset`)
and takes keys and values (`update_and_fetch`). B sequences of L tokens; the engine runs every token
of a step as a sequence of its own (B rows, L = 1) over paged caches.
"""

from __future__ import annotations

from typing import Any

from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.core.recorder.attention import scaled_dot_product_attention
from nanocupy.distributed import Group
from nanocupy.models.cache import run_layers
from nanocupy.models.rope_scaling import make_rope
from nanocupy.nn import Embedding, Linear, Module, RMSNorm, silu


class Attention(Module):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__()
        dim, head_dim, bias = args.hidden_size, args.head_dim, args.attention_bias
        self.heads, self.kv_heads = args.num_attention_heads, args.num_key_value_heads
        self.scale = head_dim**-0.5
        self.q_proj = Linear(dim, self.heads * head_dim, bias=bias)
        self.k_proj = Linear(dim, self.kv_heads * head_dim, bias=bias)
        self.v_proj = Linear(dim, self.kv_heads * head_dim, bias=bias)
        self.o_proj = Linear(self.heads * head_dim, dim, bias=bias)
        self.rope = make_rope(args)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        B, L, _ = x.shape
        q, k, v = (heads.transpose(0, 2, 1, 3) for heads in self.project(x))
        offset = 0 if cache is None else cache.offset
        q, k = self.rope(q, offset=offset), self.rope(k, offset=offset)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        out = self.attend(q, k, v, mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1))

    def project(self, x: array) -> tuple[array, array, array]:
        """q [B, L, heads, head_dim], k and v [B, L, kv_heads, head_dim] of x [B, L, dim]."""
        B, L, _ = x.shape
        q = self.q_proj(x).reshape(B, L, self.heads, -1)
        k = self.k_proj(x).reshape(B, L, self.kv_heads, -1)
        v = self.v_proj(x).reshape(B, L, self.kv_heads, -1)
        return q, k, v

    def attend(self, q: array, k: array, v: array, mask: Any) -> array:
        return scaled_dot_product_attention(q, k, v, scale=self.scale, mask=mask)


class MLP(Module):
    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        dim, hidden, bias = args.hidden_size, args.intermediate_size, args.mlp_bias
        self.gate_proj = Linear(dim, hidden, bias=bias)
        self.up_proj = Linear(dim, hidden, bias=bias)
        self.down_proj = Linear(hidden, dim, bias=bias)

    def __call__(self, x: array) -> array:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class TransformerBlock(Module):
    attention_class: type[Attention] = Attention
    mlp_class: type[Any] = MLP

    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = self.attention_class(args, layer)
        self.mlp = self.mlp_class(args)
        self.input_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, x: array, mask: Any = None, cache: Any = None) -> array:
        h = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return h + self.mlp(self.post_attention_layernorm(h))


class LlamaModel(Module):
    block_class: type[TransformerBlock] = TransformerBlock

    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.args = args
        self.embed_tokens = Embedding(args.vocab_size, args.hidden_size)
        self.layers = [self.block_class(args, layer) for layer in range(args.num_hidden_layers)]
        self.norm = RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def __call__(self, tokens: array, cache: Any = None) -> array:
        h = self.embed(tokens)
        return self.norm(run_layers(self.layers, h, cache, self.args.windows))

    def embed(self, tokens: array) -> array:
        return self.embed_tokens(tokens)


class Model(Module):
    """Logits f32 [B, L, vocabulary] of tokens int32 [B, L]."""

    decoder_class: type[LlamaModel] = LlamaModel

    def __init__(self, args: ModelConfig) -> None:
        super().__init__()
        self.args = args
        self.model = self.decoder_class(args)
        if not args.tie_word_embeddings:
            self.lm_head = Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(self, tokens: array, cache: Any = None) -> array:
        return self.head(self.model(tokens, cache))

    def head(self, h: array) -> array:
        """Logits of the last hidden states."""
        if self.args.tie_word_embeddings:
            return self.model.embed_tokens.as_linear(h)
        return self.lm_head(h)

    @property
    def layers(self) -> list[TransformerBlock]:
        return self.model.layers

    def shard(self, group: Group) -> None:
        """Keep the part of every layer that this rank of the group computes: see `models.shard`."""
        from nanocupy.models.shard import shard_decoder

        shard_decoder(self, group)

    @staticmethod
    def sanitize(names: list[str]) -> dict[str, str]:
        """{name in the checkpoint: name in the model}. Tensors that are left out are ignored."""
        return {n: n for n in names if "rotary_emb.inv_freq" not in n}

    @staticmethod
    def adapt(name: str, value: array) -> array:
        """The value of a parameter, given the checkpoint's tensor."""
        return value
