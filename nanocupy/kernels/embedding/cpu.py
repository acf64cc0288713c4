"""The launch of embedding on a CPU."""

from __future__ import annotations

from typing import Any

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.linear.cpu import PanelWeight

KERNEL = CpuKernel("embedding:embedding")
_KINDS = {"f32": 0, "f16": 1, "bf16": 2}


def launch(
    device: Any,
    weight: PanelWeight,
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
    form, limit = weight.format, weight.n if vocabulary is None else vocabulary
    arrays = (weight.view, tokens, out, rows.count)
    sizes = (weight.k, weight.n, weight.group_bytes)
    how = (form.bits, form.group, _KINDS[form.kind], int(form.symmetric))
    return Launch(KERNEL, (*arrays, *sizes, *how, first, limit))
