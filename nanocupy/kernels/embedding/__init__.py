"""Embedding: out[i] = weight[tokens[i]], read from the layout that a tied head uses too.

The weight may be a part of the table, its rows from `first` on: tokens of other parts give zeros,
so that the ranks' parts add up to the whole. A token outside the vocabulary is an error: on the CPU
the kernel fails with code 1, on CUDA its row is NaN, which ends its own request and no other.
"""

from __future__ import annotations

import numpy as np


def reference(
    tokens: np.ndarray, weight: np.ndarray, first: int = 0, vocabulary: int | None = None
) -> np.ndarray:
    """tokens int32 [...], weight f32 [N, K] -> f32 [..., K].

    Raises:
        IndexError: a token outside the vocabulary.
    """
    size = len(weight) if vocabulary is None else vocabulary
    if wrong := tokens[(tokens < 0) | (tokens >= size)].tolist():
        raise IndexError(f"[embedding] tokens {wrong[:5]} of a vocabulary of {size}")
    at = tokens - first
    inside = (at >= 0) & (at < len(weight))
    return np.where(inside[..., None], weight[np.where(inside, at, 0)], weight.dtype.type(0))
