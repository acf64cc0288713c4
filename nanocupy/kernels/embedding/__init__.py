"""Embedding: out[i] = weight[tokens[i]], read from the layout that a tied head uses too.

The weight may be a part of the table, its rows from `first` on: tokens of other parts give zeros,
so that the ranks' parts add up to the whole. A token outside the vocabulary is an error: on the CPU
the kernel fails with code 1, on CUDA its row is NaN, which ends its own request and no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.elementwise import CUDA_BLOCK, cuda_grid
from nanocupy.kernels.kernel import C_TYPES, CpuKernel, CudaKernel
from nanocupy.kernels.linear import _KINDS, PackedWeight

CPU = CpuKernel("embedding:embedding")


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


def launch(
    device: Any,
    weight: PackedWeight,
    tokens: Any,
    out: Any,
    rows: Rows,
    *,
    first: int = 0,
    vocabulary: int | None = None,
) -> Launch:
    """out f32 [rows, k] of tokens int32 [rows].

    Args:
        first: which token the weight's first row is of.
        vocabulary: how many tokens there are. Default: as many as rows of the weight.
    """
    form = weight.format
    table = first, weight.n if vocabulary is None else vocabulary
    if device.kind == "cuda":
        if form.bits:
            from nanocupy.kernels.linear import cuda as row_major

            return row_major.launch_embedding(device, weight, tokens, out, rows, *table)
        kernel = CudaKernel("embedding", f"embedding<{C_TYPES[weight.data.dtype]}>")
        sizes = map(np.int32, (weight.n, weight.k, *table))
        args = (out, weight.view, tokens, rows.count, *sizes)
        return Launch(kernel, args, cuda_grid(rows, weight.k), CUDA_BLOCK)
    shape = (
        weight.k,
        weight.n,
        form.group_bytes(weight.k),
        form.bits,
        form.group,
        _KINDS[form.kind],
        int(form.symmetric),
        *table,
    )
    return Launch(CPU, (weight.view, tokens, out, rows.count, *shape))
