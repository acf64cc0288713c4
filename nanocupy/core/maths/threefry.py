"""MLX's generator, threefry2x32: words of 32 random bits from a key, and ints made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.recorder.specs import elements

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
BELOW_ONE = 1 - 2**-24  # the largest float32 below one
ALL_BITS = np.float32(2**32 - 1)


def _threefry(key: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """The hash of pairs of counters, uint32, by 20 rounds."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = first + keys[0], second + keys[1]
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x = x + y
            y = x ^ (y << np.uint32(turn) | y >> np.uint32(32 - turn))
        x = x + keys[(block + 1) % 3]
        y = y + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x, y


def words(key: np.ndarray, count: int) -> np.ndarray:
    """`count` words from one key: word i and word i + half come of one hash."""
    half, odd = divmod(count, 2)
    counters = np.arange(half, dtype=np.uint32)
    pairs = _threefry(key, counters, counters + np.uint32(half + odd))
    middle = _threefry(key, np.array([half], np.uint32), np.zeros(1, np.uint32))[0][:odd]
    return np.concatenate([pairs[0], middle, pairs[1]])


def bits(key: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return words(key, elements(shape)).reshape(shape)


# ---- ints from low to high


def small_ints(key: np.ndarray, low: np.ndarray, high: np.ndarray, dtype: Any) -> np.ndarray:
    """By float32, as MLX draws them."""
    drawn = bits(key, shape=low.shape).astype(np.float32)
    first = low.astype(np.float32)
    span = high.astype(np.float32) - first
    value = np.floor(span * np.minimum(drawn / ALL_BITS, np.float32(BELOW_ONE)) + first)
    last = (high - high.dtype.type(1)).astype(dtype)
    return np.asarray(np.maximum(np.minimum(value.astype(dtype), last), low.astype(dtype)))


def wide_ints(key: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """low + floor(part * (high - low)), part a number of 64 bits; all modulo 2**64."""
    count, half = low.size, np.uint64(32)
    kind = np.uint64 if "u8" in (low.dtype.str[1:], high.dtype.str[1:]) else np.int64
    first, last = low.astype(kind), high.astype(kind)
    with np.errstate(over="ignore"):
        span = np.where(last > first, last.astype(np.uint64) - first.astype(np.uint64), 0)
        upper = bits(key, shape=low.shape).astype(np.uint64)
        lower = words(key, 2 * count)[count:].reshape(low.shape).astype(np.uint64)
        above, below = span >> half, span & np.uint64(0xFFFFFFFF)
        # the upper half of the product of two numbers of 64 bits
        cross = (
            (lower * below >> half)
            + (upper * below & np.uint64(0xFFFFFFFF))
            + (lower * above & np.uint64(0xFFFFFFFF))
        )
        offset = upper * above + (upper * below >> half) + (lower * above >> half) + (cross >> half)
        return np.asarray(first.astype(np.uint64) + offset).astype(kind)
