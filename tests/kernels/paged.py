"""A paged cache in tests: filling it, and what it keeps of what is put in."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.attention import KVLayout
from nanocupy.kernels.rope_write import cpu

KINDS = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "i8": np.int8}


def stored(x: np.ndarray, kind: str) -> np.ndarray:
    """f32 [tokens, kv_heads, head_dim] as the cache keeps it."""
    if kind != "i8":
        return x.astype(KINDS[kind]).astype(np.float32)
    scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    return np.asarray(np.rint(x * (np.float32(1) / scale)) * scale)


def write(
    device: Any,
    layout: KVLayout,
    k_cache: Any,
    v_cache: Any,
    k: Any,
    v: Any,
    slots: Any,
    rows: Rows,
    **strides: int,
) -> Launch:
    """Put keys and values that have turned already into their slots."""
    arrays = (None, k_cache, v_cache, k, k, v, slots, slots, None)
    return cpu.launch(device, layout, *arrays, rows, heads=layout.kv_heads, **strides)


def read(
    layout: KVLayout, k_cache: Any, v_cache: Any, table: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """K and V of a sequence's first positions on a CPU, each f32 [length, kv_heads, head_dim]."""
    blocks = table[: -(-length // layout.block_size)]
    k, v = (np.asarray(cache)[blocks] for cache in (k_cache, v_cache))
    if layout.kind == "i8":
        k, v = (
            unpacked(layout, k, (layout.head_dim, 16)),
            unpacked(layout, v, (16, layout.head_dim)),
        )
    k, v = (
        k.astype(np.float32).transpose(0, 2, 4, 1, 3),
        v.astype(np.float32).transpose(0, 2, 3, 1, 4),
    )
    shape = (-1, layout.kv_heads, layout.head_dim)
    return k.reshape(shape)[:length], v.reshape(shape)[:length]


def unpacked(layout: KVLayout, tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """int8 [..., bytes of a tile] -> f32 [..., *shape]."""
    codes = tiles[..., : 16 * layout.head_dim].reshape(*tiles.shape[:-1], *shape)
    scales = np.ascontiguousarray(tiles[..., 16 * layout.head_dim :]).view(np.float32)
    spread = scales[..., None, :] if shape[1] == 16 else scales[..., :, None]
    return np.asarray(codes.astype(np.float32) * spread)
