"""Positions besides `RoPE`, as `mlx.nn` has them."""

from __future__ import annotations

import math

import numpy as np

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.module import Module


class SinusoidalPositionalEncoding(Module):
    """x [...] -> sines and cosines [..., dims] of x (https://arxiv.org/abs/1706.03762).

    Args:
        min_freq, max_freq: the frequencies' range; the highest comes first.
        scale: the factor of the result. None: sqrt(2 / dims).
        cos_first: cosines before sines.
        full_turns: frequencies are turns, not radians.
    """

    def __init__(
        self,
        dims: int,
        min_freq: float = 0.0001,
        max_freq: float = 1,
        scale: float | None = None,
        cos_first: bool = False,
        full_turns: bool = False,
    ) -> None:
        super().__init__()
        if dims <= 0 or dims % 2:
            raise ValueError(
                f"[SinusoidalPositionalEncoding] dims={dims}: expected an even number above 0"
            )
        ends = math.log(max_freq), math.log(min_freq)
        waves = np.exp(np.linspace(*ends, dims // 2)) * (2 * math.pi if full_turns else 1)
        self._sigmas = array(waves.astype(np.float32))
        self.scale = (2 / dims) ** 0.5 if scale is None else scale
        self.cos_first = cos_first

    def __call__(self, x: array) -> array:
        angles = x[..., None] * self._sigmas
        parts = [core.sin(angles), core.cos(angles)]
        return core.concatenate(parts[::-1] if self.cos_first else parts, axis=-1) * self.scale


class ALiBi(Module):
    """Attention scores [B, heads, L, S] minus each head's slope times the distance of query and key
    (https://arxiv.org/abs/2108.12409)."""

    @staticmethod
    def create_alibi_slope(num_heads: int, dtype: core.Dtype = core.float32) -> array:
        """[heads, 1, 1]: a geometric series; where `num_heads` is no power of two, completed with
        every other slope of the next power."""
        most = 2 ** math.floor(math.log2(num_heads))
        slopes = [2 ** (-8 * (i + 1) / most) for i in range(most)]
        slopes += [2 ** (-4 * (i + 1) / most) for i in range(0, 2 * most, 2)][: num_heads - most]
        return array(np.array(slopes, np.float32)).astype(dtype).reshape(num_heads, 1, 1)

    @staticmethod
    def create_alibi_matrix(
        q_sequence_length: int,
        k_sequence_length: int,
        num_heads: int,
        offset: int = 0,
        dtype: core.Dtype = core.float32,
    ) -> array:
        """[1, heads, queries, keys], added to the scores; queries start at `offset`."""
        queries, keys = core.arange(offset, q_sequence_length), core.arange(k_sequence_length)
        distance = -core.abs(queries[:, None] - keys[None, :])[None, None]
        return (distance * ALiBi.create_alibi_slope(num_heads, dtype)).astype(dtype)

    def __call__(
        self, attention_scores: array, offset: int = 0, mask: array | None = None
    ) -> array:
        _, heads, queries, keys = attention_scores.shape
        bias = self.create_alibi_matrix(
            queries + offset, keys, heads, offset, attention_scores.dtype
        )
        return attention_scores + (bias if mask is None else bias + mask)
