"""The plain cache of a model that runs without an engine, and the masks of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy import core
from nanocupy.core import array


class KVCache:
    """Keys and values of one layer as two growing arrays."""

    def __init__(self) -> None:
        self.keys: array | None = None
        self.values: array | None = None
        self.offset = 0

    def update_and_fetch(self, keys: array, values: array) -> tuple[array, array]:
        """Append the keys and values of new tokens; return those of all tokens."""
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        else:
            self.keys = core.concatenate([self.keys, keys], axis=2)
            self.values = core.concatenate([self.values, values], axis=2)
        self.offset = self.keys.shape[2]
        return self.keys, self.values


def causal_mask(h: array, cache: Any = None, window: int = 0) -> Any:
    """The mask for tokens h [B, L, ...]: the cache's own, else causal where L > 1.

    Args:
        window: to how many of the last tokens, itself among them, a token attends; 0 for all.
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
    """Run h through all layers, each with its cache and the mask of its window.

    Args:
        windows: one for each layer, see `causal_mask`. Empty: no layer has one.
    """
    caches = cache or [None] * len(layers)
    windows = windows or [0] * len(layers)
    masks = {window: causal_mask(h, caches[0], window) for window in {*windows}}
    for layer, layer_cache, window in zip(layers, caches, windows, strict=True):
        h = layer(h, masks[window], layer_cache)
    return h
