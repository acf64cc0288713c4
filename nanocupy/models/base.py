"""What model files share: attention over any cache, the causal mask, a plain cache."""

from __future__ import annotations

from typing import Any

from nanocupy import core
from nanocupy.core import array
from nanocupy.core.fast import scaled_dot_product_attention

attention = scaled_dot_product_attention


def causal_mask(h: array, cache: Any = None) -> Any:
    """The mask for tokens h [B, L, ...]: what the cache says, else causal where L > 1."""
    if cache is not None and hasattr(cache, "make_mask"):
        return cache.make_mask(h.shape[1])
    return "causal" if h.shape[1] > 1 else None


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
