"""Weights in MLX's affine codes (`kernels.affine`), as `mlx.core` has them.

Products take the weight apart first; what an engine runs on is `fast.packed_linear`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.arrays.layout import matrix_transpose
from nanocupy.core.maths.products import gather_mm, matmul
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype
from nanocupy.core.recorder.graph import Op, Spec, item
from nanocupy.dtypes import bfloat16, float8_e4m3, float32, uint8, uint32
from nanocupy.kernels.linear import affine

BITS, GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)
_EPSILON = np.float32(1e-7)
_TOGETHER = 1 << 18  # numbers that are quantised at a time: what a CPU keeps at hand


def quantize_rows(w: np.ndarray, group_size: int, bits: int) -> tuple[np.ndarray, ...]:
    """(words uint32, scales f32, biases f32) of w [n, k], which is taken a few rows at a time."""
    n, k = w.shape
    words = np.empty((n, k * bits // 32), np.uint32)
    scales, biases = (np.empty((n, k // group_size), np.float32) for _ in range(2))
    step = max(1, _TOGETHER // max(k, 1))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        groups = w[rows].astype(np.float32).reshape(-1, group_size)
        codes, scale, bias = _quantize_groups(groups, bits)
        words[rows] = affine.pack(codes.reshape(-1, k), bits)
        scales[rows], biases[rows] = (x.reshape(-1, k // group_size) for x in (scale, bias))
    return words, scales, biases


def _quantize_groups(groups: np.ndarray, bits: int) -> tuple[np.ndarray, ...]:
    """The edge of larger magnitude is met exactly, and zero is a code."""
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    down = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / np.float32(2**bits - 1), _EPSILON)
    scale = np.where(down, scale, -scale)
    edge = np.where(down, low, high)
    steps = np.rint(edge / scale)
    scale = np.where(steps == 0, scale, edge / np.where(steps == 0, 1, steps))
    bias = np.where(steps == 0, np.float32(0), edge)
    codes = groups - bias
    codes /= scale
    np.rint(codes, out=codes)
    return np.clip(codes, 0, 2**bits - 1, out=codes).astype(np.uint8), scale, bias


def _quantize(w: np.ndarray, *, group_size: int, bits: int) -> tuple[np.ndarray, ...]:
    rows = w.reshape(-1, w.shape[-1])
    words, scales, biases = quantize_rows(rows, group_size, bits)
    shape = w.shape[:-1]
    numbers = (x.astype(w.dtype).reshape(*shape, -1) for x in (scales, biases))
    return words.reshape(*shape, -1), *numbers


def _quantize_specs(w: Spec, *, group_size: int, bits: int) -> list[Spec]:
    *rows, k = w[0]
    parts = (*rows, k // group_size)
    return [((*rows, k * bits // 32), uint32), (parts, w[1]), (parts, w[1])]


def _dequantize(
    words: np.ndarray, scales: np.ndarray, biases: np.ndarray, *, group_size: int, bits: int
) -> np.ndarray:
    codes = affine.unpack(words, bits)
    groups = codes.reshape(*scales.shape, group_size).astype(float32)
    wide = groups * scales[..., None].astype(float32) + biases[..., None].astype(float32)
    return wide.reshape(codes.shape).astype(scales.dtype)


_QUANTIZE = Op("quantize", _quantize_specs, _quantize)
_DEQUANTIZE = Op(
    "dequantize",
    lambda w, s, b, *, group_size, bits: ((*w[0][:-1], w[0][-1] * 32 // bits), s[1]),
    _dequantize,
)


def _format(
    name: str, group_size: int | None, bits: int | None, mode: str, global_scale: Any
) -> dict[str, int]:
    if mode != "affine" or global_scale is not None:
        raise NotImplementedError(f"[{name}] mode={mode!r}: only 'affine', without a global scale")
    form = {"group_size": group_size or 64, "bits": bits or 4}
    if form["group_size"] not in GROUPS or form["bits"] not in BITS:
        raise ValueError(f"[{name}] {form}: groups of {GROUPS} and bits of {BITS}")
    return form


def quantize(
    w: Any, /, group_size: int | None = None, bits: int | None = None, mode: str = "affine", *,
    global_scale: Any = None,
) -> tuple[array, array, array]:  # fmt: skip
    """(words, scales, biases) of w [..., n, k]; by default 4 bits in groups of 64.

    Raises:
        NotImplementedError: a mode other than "affine".
    """
    w, form = as_array(w), _format("quantize", group_size, bits, mode, global_scale)
    if w.dtype.kind not in "fV" or w.ndim < 2 or w.shape[-1] % form["group_size"]:
        raise ValueError(
            f"[quantize] w is {w.dtype} {w.shape}: expected floats of 2 dimensions or more, the "
            f"last a multiple of group_size={form['group_size']}"
        )
    node = record(_QUANTIZE, w, **form).node
    words, scales, biases = (array(item(node, i)) for i in range(3))
    return words, scales, biases


def dequantize(
    w: Any, /, scales: Any, biases: Any = None, group_size: int | None = None,
    bits: int | None = None, mode: str = "affine", global_scale: Any = None, dtype: Any = None,
) -> array:  # fmt: skip
    """The matrix that `quantize` took, as near as its codes are; in the dtype of the scales."""
    form = _format("dequantize", group_size, bits, mode, global_scale)
    if biases is None:
        raise ValueError("[dequantize] affine codes have biases")
    w, scales, biases = as_array(w), as_array(scales), as_array(biases)
    _check_parts(w, scales, biases, **form)
    out = record(_DEQUANTIZE, w, scales, biases, **form)
    return out if dtype is None else astype(out, dtype)


def _check_parts(w: array, scales: array, biases: array, group_size: int, bits: int) -> None:
    """
    Raises:
        ValueError: these are not the parts of one matrix.
    """
    if w.dtype != uint32 or any(v.dtype.kind not in "fV" for v in (scales, biases)):
        raise ValueError(
            f"[dequantize] {w.dtype} codes, {scales.dtype} scales and {biases.dtype} biases: "
            "expected uint32 and floats"
        )
    groups = (*w.shape[:-1], w.shape[-1] * 32 // bits // group_size) if w.ndim else ()
    if w.ndim < 2 or scales.shape != groups or biases.shape != groups:
        raise ValueError(
            f"[dequantize] codes {w.shape}, scales {scales.shape} and biases {biases.shape} of "
            f"{bits} bits in groups of {group_size}: expected scales and biases {groups}"
        )


def quantized_matmul(
    x: Any, w: Any, /, scales: Any, biases: Any = None, transpose: bool = True,
    group_size: int | None = None, bits: int | None = None, mode: str = "affine",
) -> array:  # fmt: skip
    """x @ w, or by default x @ w^T, for a quantised w."""
    dense = dequantize(w, scales, biases, group_size, bits, mode)
    return matmul(x, matrix_transpose(dense) if transpose else dense)


def gather_qmm(
    x: Any, w: Any, /, scales: Any, biases: Any = None, lhs_indices: Any = None,
    rhs_indices: Any = None, transpose: bool = True, group_size: int | None = None,
    bits: int | None = None, mode: str = "affine", global_scale: Any = None, *,
    sorted_indices: bool = False,
) -> array:  # fmt: skip
    """`gather_mm` for a quantised w."""
    dense = dequantize(w, scales, biases, group_size, bits, mode, global_scale)
    dense = matrix_transpose(dense) if transpose else dense
    return gather_mm(x, dense, lhs_indices, rhs_indices)


# ---- floats of 8 bits: e4m3, without infinities

_LARGEST = 448.0
_TO_FP8 = Op(
    "to_fp8",
    lambda x: (x[0], uint8),
    lambda x: (
        np.where(np.isnan(x), np.float32(_LARGEST), np.clip(x, -_LARGEST, _LARGEST))
        .astype(float8_e4m3)
        .view(np.uint8)
    ),
)
_FROM_FP8 = Op(
    "from_fp8",
    lambda x, *, dtype: (x[0], dtype),
    lambda x, *, dtype: np.ascontiguousarray(x).view(float8_e4m3).astype(float32).astype(dtype),
)


def to_fp8(x: Any) -> array:
    """The codes of x in e4m3, uint8; what is too large becomes the largest, 448."""
    x = as_array(x)
    if x.dtype.kind not in "fV":
        raise ValueError(f"[to_fp8] x is {x.dtype}: expected floats")
    return record(_TO_FP8, astype(x, float32))


def from_fp8(x: Any, dtype: Any = bfloat16) -> array:
    """The numbers that codes of e4m3 stand for."""
    x = as_array(x)
    if x.dtype != uint8:
        raise ValueError(f"[from_fp8] x is {x.dtype}: expected codes, uint8")
    return record(_FROM_FP8, x, dtype=np.dtype(dtype))
