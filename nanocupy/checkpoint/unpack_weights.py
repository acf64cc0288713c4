"""Unpack other programs' int32 words to affine codes and zero points, as `kernels.linear` has them.

A matrix [N, K] has N outputs. Words are little-endian and read as uint32 or as bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanocupy.dtypes import bfloat16
from nanocupy.kernels.linear.affine import pack, unpack

Words = NDArray[np.integer]
Codes = NDArray[np.uint8]
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""The place of columns 0, 1, ... in an AWQ word, which packs columns 0, 2, 4, 6, 1, 3, 5, 7."""


def awq_codes(words: Words) -> Codes:
    """AWQ's words along N, int32 [rows, N/8] -> codes [rows, N]."""
    codes = unpack(words, 4).reshape(len(words), -1, 8)
    return codes[..., AWQ_ORDER].reshape(len(words), -1)


def awq_weight(words: Words) -> NDArray[np.uint32]:
    """qweight int32 [K, N/8] -> words [N, K/8]."""
    return pack(np.ascontiguousarray(awq_codes(words).T), 4)


def gptq_weight(words: Words, bits: int, order: NDArray[Any] | None) -> NDArray[np.uint32]:
    """qweight int32 [K*bits/32, N], packed along K -> words [N, K*bits/32].

    Args:
        order: the input that each column of the result is for, int [K]. None: as they are.
    """
    return reordered(np.ascontiguousarray(words.T), bits, order)


def reordered(words: Words, bits: int, order: NDArray[Any] | None) -> NDArray[np.uint32]:
    """Words [N, K*bits/32] with their columns in another order. None: as they are."""
    return words.view(np.uint32) if order is None else pack(unpack(words, bits)[:, order], bits)


def gptq_zeros(words: Words, bits: int, version: int) -> Codes:
    """qzeros int32 [groups, N*bits/32] -> zero points [N, groups].

    Version 1 stores one less: a word of ones was subtracted from whole words, so that a zero point
    of 0 borrowed from the next.
    """
    if version == 1:
        ones = sum(1 << shift for shift in range(0, 32, bits))
        words = np.ascontiguousarray(words).view(np.uint32) + np.uint32(ones)
    return np.ascontiguousarray(unpack(words, bits).T)


def compressed_zeros(words: Words, bits: int, rows: int) -> Codes:
    """weight_zero_point int32 [N*bits/32, groups], packed along N -> zero points [N, groups].

    Like the codes they are stored with 2^(bits-1) added; int8 [N, groups] are not.
    """
    if words.dtype == np.int8:
        return (words.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    return np.ascontiguousarray(unpack(words.T, bits).T[:rows])


def repeat_groups(numbers: NDArray[Any], times: int) -> NDArray[Any]:
    """[N, groups] -> [N, groups * times]: the same numbers for smaller groups."""
    return np.repeat(numbers, times, axis=1) if times > 1 else np.ascontiguousarray(numbers)


def biases(scales: NDArray[Any], zeros: NDArray[Any] | int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """-zero * scale [N, groups]: (code - zero) * scale is code*scale + bias."""
    exact = scales.astype(np.float32) * -np.asarray(zeros, np.float32)
    with np.errstate(over="ignore"):
        stored = exact.astype(dtype)
    if not np.array_equal(stored.astype(np.float32), exact):
        raise ValueError(f"scales of up to {np.abs(scales).max()} have biases beyond {dtype}")
    return stored


def floats(weight: NDArray[Any], scales: NDArray[Any], block: tuple[int, int]) -> NDArray[Any]:
    """fp8 [N, K] times the scale of each `block` -> bf16, rounded once."""
    n, k = weight.shape
    out = np.empty(weight.shape, bfloat16)
    columns = np.repeat(scales.astype(np.float32), min(block[1], k), axis=1)[:, :k]
    step = max(1, (1 << 18) // max(k, 1))
    for start in range(0, n, step):  # in parts, so that a large matrix never exists as f32
        rows = slice(start, min(start + step, n))
        each = columns[np.arange(rows.start, rows.stop) // block[0]]
        out[rows] = weight[rows].astype(np.float32) * each
    return out
