"""What model files share: attention over any cache, masks, a plain cache, the outermost module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy import core
from nanocupy.checkpoint import ModelConfig
from nanocupy.core import array
from nanocupy.core.recorder.attention import scaled_dot_product_attention
from nanocupy.models.shard import shard_decoder
from nanocupy.nn import Linear, Module

attention = scaled_dot_product_attention


def causal_mask(h: array, cache: Any = None, window: int = 0) -> Any:
    """The mask for tokens h [B, L, ...]: what the cache says, else causal where L > 1.

    Args:
        window: to how many of the last tokens, its own among them, a token attends; 0 for all.
    """
    length = h.shape[1]
    if cache is not None and hasattr(cache, "make_mask"):
        return cache.make_mask(length, window_size=window or None)
    if not window:
        return "causal" if length > 1 else None
    past = 0 if cache is None else cache.offset
    query, key = np.arange(past, past + length)[:, None], np.arange(past + length)
    return array((key <= query) & (key > query - window))


def run_layers(layers: Sequence[Any], h: array, cache: Any, windows: Sequence[int]) -> array:
    """h after all layers, each with its cache and the mask of its window.

    Args:
        windows: of the layers, see `causal_mask`. Empty: none has one.
    """
    caches = cache or [None] * len(layers)
    each = windows or [0] * len(layers)
    masks = {window: causal_mask(h, caches[0], window) for window in {*each}}
    for layer, layer_cache, window in zip(layers, caches, each, strict=True):
        h = layer(h, masks[window], layer_cache)
    return h


class LanguageModel(Module):
    """Logits f32 [B, L, vocabulary] of tokens int32 [B, L]: a trunk `model`, and a head.

    A model file's `Model` is one of these.
    """

    def __init__(self, args: ModelConfig, trunk: Module) -> None:
        super().__init__()
        self.args = args
        self.model = trunk
        if not args.tie_word_embeddings:
            self.lm_head = Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(self, tokens: array, cache: Any = None) -> array:
        return self.head(self.model(tokens, cache))

    def head(self, out: array) -> array:
        """The trunk's output to logits."""
        if self.args.tie_word_embeddings:
            logits: array = self.model.embed_tokens.as_linear(out)
            return logits
        return self.lm_head(out)

    @property
    def layers(self) -> list[Module]:
        found: list[Module] = self.model.layers
        return found

    def shard(self, group: Any) -> None:
        """Keep of every layer what this rank of the group computes. See `models.shard`."""
        shard_decoder(self, group)

    @staticmethod
    def sanitize(names: list[str]) -> dict[str, str]:
        """{name in the checkpoint: name in the model}; a name left out is known and not wanted."""
        return {n: n for n in names if "rotary_emb.inv_freq" not in n}

    @staticmethod
    def adapt(name: str, value: array) -> array:
        """A tensor of the checkpoint as the model has it."""
        return value


class KVCache:
    """Keys and values of one layer as two growing arrays: for a model without an engine."""

    def __init__(self) -> None:
        self.keys: array | None = None
        self.values: array | None = None
        self.offset = 0

    def update_and_fetch(self, keys: array, values: array) -> tuple[array, array]:
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        else:
            self.keys = core.concatenate([self.keys, keys], axis=2)
            self.values = core.concatenate([self.values, values], axis=2)
        self.offset = self.keys.shape[2]
        return self.keys, self.values
