"""Embedding: out[i] = weight[tokens[i]], read from the packed layout that a tied head uses too."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch
from nanocupy.kernels.base import CpuKernel
from nanocupy.kernels.linear import _KINDS, PackedWeight

CPU = CpuKernel("embedding:embedding")
CUDA = "embedding"


def reference(tokens: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """tokens int32 [rows], weight f32 [N, K] -> f32 [rows, K]."""
    return weight[tokens]


def launch(weight: PackedWeight, tokens: Any, out: Any, rows: Any) -> Launch:
    """out f32 [rows, k]. The kernel fails with code 1 on a token outside [0, n)."""
    form = weight.format
    shape = (
        weight.k,
        weight.n,
        form.group_bytes(weight.k),
        form.bits,
        form.group,
        _KINDS[form.kind],
    )
    return Launch(CPU, (weight.view, tokens, out, rows, *shape))
