"""Attention over keys and values that are arrays, and over the pages of a `PagedCache`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import promote
from nanocupy.core.recorder.dtypes import common
from nanocupy.core.recorder.graph import Op, Spec
from nanocupy.core.recorder.paged import PagedView, SlidingWindow, paged_attention
from nanocupy.core.recorder.public import public
from nanocupy.core.recorder.shapes import concatenate
from nanocupy.core.recorder.specs import broadcast, upcast

# The score of what is hidden: finite, so that a row that sees nothing sees all alike, and not NaN.
_HIDDEN = np.finfo(np.float32).min


def _softmax(scores: np.ndarray, sinks: np.ndarray | None) -> np.ndarray:
    """Softmax over the last axis; a sink is one more score, whose weight is dropped."""
    most = scores.max(-1, keepdims=True, initial=-np.inf)
    if sinks is None:
        weights = np.exp(scores - most)
        return np.asarray(weights / weights.sum(-1, keepdims=True))
    most = np.maximum(most, sinks)
    weights = np.exp(scores - most)
    return np.asarray(weights / (weights.sum(-1, keepdims=True) + np.exp(sinks - most)))


def _attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *extra: np.ndarray, scale: float, softcap: float,
    causal: bool, masked: bool, sinks: bool,
) -> np.ndarray:  # fmt: skip
    """q [B, heads, L, d], k [B, kv_heads, S, d], v [B, kv_heads, S, e] -> [B, heads, L, e]."""
    dtype, repeat = q.dtype, q.shape[1] // k.shape[1]
    q, k, v = upcast(q), np.repeat(upcast(k), repeat, axis=1), np.repeat(upcast(v), repeat, axis=1)
    scores = (q @ k.transpose(0, 1, 3, 2)) * np.float32(scale)
    if softcap:
        scores = np.float32(softcap) * np.tanh(scores / np.float32(softcap))
    mask = extra[0] if masked else None
    if causal:
        mask = np.tri(q.shape[2], k.shape[2], k.shape[2] - q.shape[2], dtype=bool)
    if mask is not None and mask.dtype == bool:
        scores = np.where(mask, scores, _HIDDEN)
    elif mask is not None:
        scores = scores + upcast(mask)
    weights = _softmax(scores, extra[-1].reshape(-1, 1, 1) if sinks else None)
    return np.asarray(weights @ v).astype(dtype, copy=False)


def _spec(q: Spec, k: Spec, v: Spec, *_: Spec, **__: Any) -> Spec:
    (shape, dtype), keys, values = q, k[0], v[0]
    fits = len(shape) == len(keys) == len(values) == 4 and keys[:3] == values[:3]
    if not fits or shape[0] != keys[0] or shape[3] != keys[3] or shape[1] % keys[1]:
        raise ValueError(f"[scaled_dot_product_attention] q {shape}, k {keys} and v {values}")
    return (*shape[:3], values[3]), dtype


ATTENTION = Op("scaled_dot_product_attention", _spec, _attend)


@public
def scaled_dot_product_attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: float,
    mask: Any = None,
    sinks: Any = None,
    softcap: float = 0.0,
) -> array:
    """softmax(q k^T * scale + mask) v; q [B, heads, L, d], k, v [B, kv_heads, S, d].

    With the views that a `PagedCache` hands out, attention over pages.

    Args:
        mask: "causal": a row sees the keys up to its own, the last row all of them; bools: what is
            seen; floats: added to the scores. Broadcast to [B, heads, L, S].
        sinks: [heads], a score of each head that takes weight from the others.
        softcap: (not in MLX) makes softcap * tanh(s / softcap) of a score s; 0 for none.
    """
    if isinstance(k, PagedView):
        if not isinstance(mask, SlidingWindow | None) or sinks is not None:
            raise NotImplementedError(
                "[paged_attention] a mask or sinks: rows attend to their own past only"
            )
        sizes = [size for size in (mask.size if mask else 0, k.cache.window) if size]
        window, size, values = min(sizes, default=0), k.shape[-1], v.fresh
        if v.shape[-1] < size:  # pages have room for keys: fill it with anything, and leave it out
            values = concatenate([values] * -(-size // v.shape[-1]), axis=-1)[..., :size]
        out = paged_attention(q, k.fresh, values, k.cache, scale, window, softcap)
        return out[..., : v.shape[-1]]
    if isinstance(mask, str) and mask != "causal":
        raise ValueError(
            f"[scaled_dot_product_attention] mask={mask!r}: expected 'causal' or an array"
        )
    causal = isinstance(mask, str)
    masked = mask is not None and not causal
    q, k, v = promote((as_array(q), as_array(k), as_array(v)))
    extra = [as_array(x) for x, used in ((mask, masked), (sinks, sinks is not None)) if used]
    _check(q, k, extra[0] if masked else None, None if sinks is None else extra[-1])
    how = {
        "scale": scale,
        "softcap": softcap,
        "causal": causal,
        "masked": masked,
        "sinks": sinks is not None,
    }
    return record(ATTENTION, q, k, v, *extra, **how)


def _check(q: array, k: array, mask: array | None, sinks: array | None) -> None:
    """Check dtypes, mask and sinks; `_spec` checks the shapes of q, k and v."""
    name = "[scaled_dot_product_attention]"
    if q.dtype.kind not in "fV":
        raise ValueError(f"{name} q, k and v of {q.dtype}: expected floats")
    if mask is not None and common(mask.dtype, q.dtype) != q.dtype:
        raise ValueError(f"{name} mask of {mask.dtype} for {q.dtype}: cast it")
    if mask is not None and q.ndim == k.ndim == 4:
        scores = (*q.shape[:3], k.shape[2])
        if mask.ndim > 4 or broadcast(scores, mask.shape) != scores:
            raise ValueError(f"{name} mask of shape {mask.shape} for scores of {scores}")
    if sinks is not None and common(sinks.dtype, q.dtype) != q.dtype:
        raise ValueError(f"{name} sinks of {sinks.dtype} for {q.dtype}: cast them")
    if sinks is not None and sinks.shape != q.shape[1:2]:
        raise ValueError(f"{name} sinks of shape {sinks.shape}: expected ({q.shape[1]},)")
