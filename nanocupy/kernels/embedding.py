"""Embedding: out[i] = weight[tokens[i]], read from the layout that a tied head uses too.

A token outside the vocabulary is an error: on the CPU the kernel fails with code 1, on CUDA its row
is NaN, which ends its own request and no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch, Rows
from nanocupy.kernels.base import C_TYPES, CpuKernel, CudaKernel
from nanocupy.kernels.elementwise import CUDA_BLOCK, cuda_grid
from nanocupy.kernels.linear import _KINDS, PackedWeight

CPU = CpuKernel("embedding:embedding")


def reference(tokens: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """tokens int32 [rows], weight f32 [N, K] -> f32 [rows, K]."""
    return weight[tokens]


def launch(device: Any, weight: PackedWeight, tokens: Any, out: Any, rows: Rows) -> Launch:
    """out f32 [rows, k] of tokens int32 [rows]."""
    form = weight.format
    if device.kind == "cuda":
        if form.bits:
            from nanocupy.kernels import row_major

            return row_major.launch_embedding(device, weight, tokens, out, rows)
        kernel = CudaKernel("embedding", f"embedding<{C_TYPES[weight.data.dtype]}>")
        args = (out, weight.view, tokens, rows.count, np.int32(weight.n), np.int32(weight.k))
        return Launch(kernel, args, cuda_grid(rows, weight.k), CUDA_BLOCK)
    shape = (
        weight.k,
        weight.n,
        form.group_bytes(weight.k),
        form.bits,
        form.group,
        _KINDS[form.kind],
    )
    return Launch(CPU, (weight.view, tokens, out, rows.count, *shape))
