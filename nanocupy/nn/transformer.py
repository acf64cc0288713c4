"""The transformer of https://arxiv.org/abs/1706.03762, as `mlx.nn` has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nanocupy import core
from nanocupy.core import array, fast
from nanocupy.nn.activations import relu
from nanocupy.nn.containers import Dropout
from nanocupy.nn.layers import Linear
from nanocupy.nn.module import Module
from nanocupy.nn.normalization import LayerNorm


class MultiHeadAttention(Module):
    """Attention of queries [B, L, query dims] to keys and values [B, S, ...].

    Args:
        dims: the dimensions of all heads together.
        value_dims: the dimensions of the values of all heads. None: `dims`.
        query_input_dims, key_input_dims, value_input_dims: the inputs' dimensions. None: `dims`,
            and for values those of keys.
        value_output_dims: the output's dimensions. None: `dims`.
    """

    def __init__(
        self,
        dims: int,
        num_heads: int,
        query_input_dims: int | None = None,
        key_input_dims: int | None = None,
        value_input_dims: int | None = None,
        value_dims: int | None = None,
        value_output_dims: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if dims % num_heads:
            raise ValueError(
                f"[MultiHeadAttention] dims={dims} do not divide into num_heads={num_heads}"
            )
        keys, values = key_input_dims or dims, value_dims or dims
        self.num_heads = num_heads
        self.query_proj = Linear(query_input_dims or dims, dims, bias)
        self.key_proj = Linear(keys, dims, bias)
        self.value_proj = Linear(value_input_dims or keys, values, bias)
        self.out_proj = Linear(values, value_output_dims or dims, bias)

    def __call__(self, queries: array, keys: array, values: array, mask: Any = None) -> array:
        projected = self.query_proj(queries), self.key_proj(keys), self.value_proj(values)
        q, k, v = (
            core.unflatten(x, -1, (self.num_heads, -1)).transpose(0, 2, 1, 3) for x in projected
        )
        scale = math.sqrt(1 / q.shape[-1])
        y = fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
        return self.out_proj(y.transpose(0, 2, 1, 3).flatten(-2, -1))

    @staticmethod
    def create_additive_causal_mask(N: int, dtype: core.Dtype = core.float32) -> array:
        """[N, N]: the least finite number where the key is later than the query, else 0."""
        places = core.arange(N)
        return (places[:, None] < places[None]).astype(dtype) * core.finfo(dtype).min


class _Layer(Module):
    """Attentions, then a feed-forward part, each with a residual connection."""

    attentions: tuple[str, ...]

    def __init__(
        self,
        dims: int,
        num_heads: int,
        mlp_dims: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[array], array] = relu,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        for name in self.attentions:
            self[name] = MultiHeadAttention(dims, num_heads)
        for n in range(1, len(self.attentions) + 2):
            self[f"ln{n}"], self[f"dropout{n}"] = LayerNorm(dims), Dropout(dropout)
        self.linear1 = Linear(dims, mlp_dims or dims * 4)
        self.linear2 = Linear(mlp_dims or dims * 4, dims)
        self.activation, self.norm_first = activation, norm_first

    def _run(self, x: array, *parts: Callable[[array], array]) -> array:
        """Apply the parts, with each one's norm before it or after the residual."""
        for n, part in enumerate(parts, 1):
            norm = self[f"ln{n}"]
            x = x + part(norm(x)) if self.norm_first else norm(x + part(x))
        return x

    def _feed(self, x: array) -> array:
        return self.linear2(self.activation(self.linear1(x)))


class TransformerEncoderLayer(_Layer):
    """Attention of x to itself, then a feed-forward part."""

    attentions = ("attention",)

    def __call__(self, x: array, mask: Any) -> array:
        return self._run(x, lambda y: self.attention(y, y, y, mask), self._feed)


class TransformerDecoderLayer(_Layer):
    """Attention of x to itself, then to `memory`, then a feed-forward part."""

    attentions = ("self_attention", "cross_attention")

    def __call__(self, x: array, memory: array, x_mask: Any, memory_mask: Any) -> array:
        return self._run(
            x,
            lambda y: self.self_attention(y, y, y, x_mask),
            lambda y: self.cross_attention(y, memory, memory, memory_mask),
            self._feed,
        )


class _Stack(Module):
    """Layers, and a norm after the last."""

    layer: type[_Layer]

    def __init__(
        self,
        num_layers: int,
        dims: int,
        num_heads: int,
        mlp_dims: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[array], array] = relu,
        norm_first: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if checkpoint:
            raise NotImplementedError("[checkpoint] is for gradients: nanocupy only infers")
        how = (dims, num_heads, mlp_dims, dropout, activation, norm_first)
        self.layers = [self.layer(*how) for _ in range(num_layers)]
        self.ln = LayerNorm(dims)

    def _through(self, x: array, *about: Any) -> array:
        for layer in self.layers:
            x = layer(x, *about)
        return self.ln(x)


class TransformerEncoder(_Stack):
    """`TransformerEncoderLayer`s."""

    layer = TransformerEncoderLayer

    def __call__(self, x: array, mask: Any) -> array:
        return self._through(x, mask)


class TransformerDecoder(_Stack):
    """`TransformerDecoderLayer`s."""

    layer = TransformerDecoderLayer

    def __call__(self, x: array, memory: array, x_mask: Any, memory_mask: Any) -> array:
        return self._through(x, memory, x_mask, memory_mask)


class Transformer(Module):
    """An encoder, and a decoder that attends to the encoder's output."""

    def __init__(
        self,
        dims: int = 512,
        num_heads: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        mlp_dims: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[array], array] = relu,
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        norm_first: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        how = (dims, num_heads, mlp_dims, dropout, activation, norm_first, checkpoint)
        encoder, decoder = custom_encoder, custom_decoder  # an empty module is false
        self.encoder = TransformerEncoder(num_encoder_layers, *how) if encoder is None else encoder
        self.decoder = TransformerDecoder(num_decoder_layers, *how) if decoder is None else decoder

    def __call__(
        self, src: array, tgt: array, src_mask: Any, tgt_mask: Any, memory_mask: Any
    ) -> array:
        return self.decoder(tgt, self.encoder(src, src_mask), tgt_mask, memory_mask)
