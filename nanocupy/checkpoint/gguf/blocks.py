"""GGUF's quantised blocks as affine groups, without loss.

Types with 4-bit codes and a scale for each 32 of them keep 4 bits; others get codes of 8 bits:

    type                block                              bits, group   scales
    Q4_0, Q4_1          f16 d (f16 m), 32 codes             4, 32         as they are
    Q4_K                f16 d, m; 6-bit s, o for 32 codes   4, 32         f32: d*s, -m*o
    Q5_0, Q5_1, Q8_0    f16 d (f16 m), 32 codes             8, 32         as they are
    Q5_K                as Q4_K                             8, 32         f32: d*s, -m*o
    Q6_K, Q3_K          f16 d, 6- or 8-bit s for 16 codes   8, 16         f32: d*s
    Q2_K                f16 d, m; 4-bit s, o for 16 codes   8, 16         f32: d*s, -m*o
    IQ4_NL, IQ4_XS      codes of a table of 8-bit numbers   8, 32         f16; f32: d*s

A product of a 16-bit float and a small integer is exact in float32. Where a code stands for
`(code - zero) * scale`, codes are shifted so that zero is the middle code, and the bias is
-zero*scale, which kernels recognise and do not store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nanocupy.kernels.linear.affine import pack

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.floating]
Groups = tuple[Bytes, Numbers, "Numbers | None"]

CHUNK = 1 << 22  # elements that are converted at a time


class BlockFormat(NamedTuple):
    """A type of blocks, and the affine groups it becomes.

    Attributes:
        nbytes, elements: of a block.
        bits, group, scales: of the affine groups; `scales` is "F16" or "F32".
        symmetric: whether the middle code is zero.
        read: takes blocks uint8 [n, nbytes]; returns codes [n, elements], scales [n, elements /
            group] and biases like them, or None where symmetric.
    """

    nbytes: int
    elements: int
    bits: int
    group: int
    scales: str
    symmetric: bool
    read: Callable[[Bytes], Groups]


class Affine(NamedTuple):
    """A matrix [N, K] in affine groups along K, see `kernels.linear.affine`."""

    weight: NDArray[np.uint32]
    scales: Numbers
    biases: Numbers


def to_affine(kind: str, rows: Bytes) -> Affine:
    """Convert rows of blocks, uint8 [N, bytes of a row]. ValueError: a scale is not finite."""
    block, n = BLOCK_FORMATS[kind], rows.shape[0]
    size = rows.shape[1] // block.nbytes * block.elements
    groups = n, size // block.group
    whole = Affine(
        np.empty((n, size * block.bits // 32), np.uint32),
        np.empty(groups, np.float32 if block.scales == "F32" else np.float16),
        np.empty(groups, bias_dtype(kind, rows)),
    )
    step = max(1, CHUNK // max(size, 1))
    for start in range(0, n, step):
        part = slice(start, start + step)
        with np.errstate(invalid="ignore"):  # what is not finite is refused below
            codes, scales, biases = block.read(rows[part].reshape(-1, block.nbytes))
        whole.weight[part] = pack(codes.reshape(-1, size), block.bits)
        whole.scales[part] = scales.reshape(-1, groups[1])
        given = _middle(scales, block.bits) if biases is None else biases
        whole.biases[part] = given.reshape(-1, groups[1])
    if not (np.isfinite(whole.scales).all() and np.isfinite(whole.biases).all()):
        raise ValueError("it holds a scale that is not finite")
    return whole


def bias_dtype(kind: str, rows: Bytes) -> np.dtype[np.floating]:
    """The dtype of `to_affine`'s biases: the scales' where they are exact in it, else float32."""
    block = BLOCK_FORMATS[kind]
    if block.scales == "F32":
        return np.dtype(np.float32)
    if not block.symmetric:
        return np.dtype(np.float16)
    return _middle(_half(rows.reshape(-1, block.nbytes), 0), block.bits).dtype


def _middle(scales: Numbers, bits: int) -> Numbers:
    """Biases that make the middle code zero: in the scales' dtype where that is exact, else f32."""
    exact = scales.astype(np.float32) * np.float32(-(1 << (bits - 1)))
    with np.errstate(over="ignore"):
        half = exact.astype(scales.dtype)
    return half if np.array_equal(half.astype(np.float32), exact) else exact


def _half(blocks: Bytes, at: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2")


def _nibbles(qs: Bytes, run: int) -> Bytes:
    """4-bit codes. Each `run` bytes hold two runs: the low halves, then the high ones."""
    pairs = qs.reshape(qs.shape[0], -1, 1, run)
    return np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(qs.shape[0], -1)


def _bit_fields(qs: Bytes, run: int, bits: int) -> Bytes:
    """As `_nibbles`, for codes of 1 or 2 bits: each `run` bytes hold 8 / bits runs."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    parts = qs.reshape(qs.shape[0], -1, 1, run) >> shifts & np.uint8((1 << bits) - 1)
    return parts.reshape(qs.shape[0], -1)


def _fifth_bits(raw: Bytes) -> Bytes:
    """32 bits, the first in the lowest place, as 0 or 16."""
    return np.unpackbits(raw, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(b: Bytes) -> Groups:
    return _nibbles(b[:, 2:], 16), _half(b, 0), None


def _q4_1(b: Bytes) -> Groups:
    return _nibbles(b[:, 4:], 16), _half(b, 0), _half(b, 2)


def _q5_0(b: Bytes) -> Groups:
    codes = _nibbles(b[:, 6:], 16) | _fifth_bits(b[:, 2:6])
    return codes + np.uint8(128 - 16), _half(b, 0), None


def _q5_1(b: Bytes) -> Groups:
    return _nibbles(b[:, 8:], 16) | _fifth_bits(b[:, 4:8]), _half(b, 0), _half(b, 2)


def _q8_0(b: Bytes) -> Groups:
    return b[:, 2:] ^ np.uint8(0x80), _half(b, 0), None


def _six_bits(raw: Bytes) -> tuple[Bytes, Bytes]:
    """The 8 scales and 8 offsets of 6 bits in the 12 bytes of Q4_K and Q5_K."""
    low, middle, high = raw[:, 0:4], raw[:, 4:8], raw[:, 8:12]
    scales = [low & 63, high & 15 | low >> 6 << 4]
    offsets = [middle & 63, high >> 4 | middle >> 6 << 4]
    return np.concatenate(scales, axis=1), np.concatenate(offsets, axis=1)


def _scaled(b: Bytes, d: int, m: int, scales: Bytes, offsets: Bytes) -> tuple[Numbers, Numbers]:
    factor, least = _half(b, d).astype(np.float32), _half(b, m).astype(np.float32)
    return factor * scales.astype(np.float32), -(least * offsets.astype(np.float32))


def _q4_k(b: Bytes) -> Groups:
    return _nibbles(b[:, 16:], 32), *_scaled(b, 0, 2, *_six_bits(b[:, 4:16]))


def _q5_k(b: Bytes) -> Groups:
    codes = _nibbles(b[:, 48:], 32) | _bit_fields(b[:, 16:48], 32, 1) << np.uint8(4)
    return codes, *_scaled(b, 0, 2, *_six_bits(b[:, 4:16]))


def _q6_k(b: Bytes) -> Groups:
    low = _nibbles(b[:, :128], 64)
    codes = low | _bit_fields(b[:, 128:192], 32, 2) << np.uint8(4)
    scales = b[:, 192:208].view(np.int8).astype(np.float32)
    return codes + np.uint8(128 - 32), _half(b, 208).astype(np.float32) * scales, None


def _q2_k(b: Bytes) -> Groups:
    return _bit_fields(b[:, 16:80], 32, 2), *_scaled(
        b, 80, 82, b[:, :16] & np.uint8(15), b[:, :16] >> np.uint8(4)
    )


def _q3_k(b: Bytes) -> Groups:
    codes = _bit_fields(b[:, 32:96], 32, 2) | _bit_fields(b[:, :32], 32, 1) << np.uint8(2)
    low, high = _nibbles(b[:, 96:104], 8), _bit_fields(b[:, 104:108], 4, 2)
    scales = (low | high << np.uint8(4)).astype(np.float32) - np.float32(32)
    return codes + np.uint8(128 - 4), _half(b, 108).astype(np.float32) * scales, None


_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_IQ4_CODES = _IQ4.view(np.uint8) ^ np.uint8(0x80)


def _iq4_nl(b: Bytes) -> Groups:
    return _IQ4_CODES[_nibbles(b[:, 2:], 16)], _half(b, 0), None


def _iq4_xs(b: Bytes) -> Groups:
    shifts = np.arange(0, 16, 2, dtype=np.uint16)
    high = np.ascontiguousarray(b[:, 2:4]).view("<u2") >> shifts & np.uint16(3)
    low = np.stack([b[:, 4:8] & 15, b[:, 4:8] >> 4], axis=2).reshape(len(b), 8)
    scales = (low | high.astype(np.uint8) << np.uint8(4)).astype(np.float32) - np.float32(32)
    return _IQ4_CODES[_nibbles(b[:, 8:], 16)], _half(b, 0).astype(np.float32) * scales, None


BLOCK_FORMATS = {
    "Q4_0": BlockFormat(18, 32, 4, 32, "F16", True, _q4_0),
    "Q4_1": BlockFormat(20, 32, 4, 32, "F16", False, _q4_1),
    "Q5_0": BlockFormat(22, 32, 8, 32, "F16", True, _q5_0),
    "Q5_1": BlockFormat(24, 32, 8, 32, "F16", False, _q5_1),
    "Q8_0": BlockFormat(34, 32, 8, 32, "F16", True, _q8_0),
    "Q2_K": BlockFormat(84, 256, 8, 16, "F32", False, _q2_k),
    "Q3_K": BlockFormat(110, 256, 8, 16, "F32", True, _q3_k),
    "Q4_K": BlockFormat(144, 256, 4, 32, "F32", False, _q4_k),
    "Q5_K": BlockFormat(176, 256, 8, 32, "F32", False, _q5_k),
    "Q6_K": BlockFormat(210, 256, 8, 16, "F32", True, _q6_k),
    "IQ4_NL": BlockFormat(18, 32, 8, 32, "F16", True, _iq4_nl),
    "IQ4_XS": BlockFormat(136, 256, 8, 32, "F32", True, _iq4_xs),
}
