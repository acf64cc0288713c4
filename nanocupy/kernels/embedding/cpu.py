"""The launch of embedding on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import NUMBERS
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.linear.cpu import PanelWeight

KERNEL = CpuKernel("embedding:embedding")


class EmbeddingArgs(NamedTuple):
    """Arguments of the kernel. The weight has rows first to first + n of the table."""

    weight: DeviceArray
    tokens: DeviceArray  # int32
    out: DeviceArray  # f32 [rows, size]
    rows: DeviceArray
    size: int
    n: int
    group_bytes: int  # of 64 rows of the weight
    bits: int  # of a code; 0: the weight is floats
    group: int
    kind: int
    symmetric: int
    first: int
    vocabulary: int


def launch(
    device: Device, weight: PanelWeight, tokens: DeviceArray, out: DeviceArray, rows: Rows, *,
    first: int = 0, vocabulary: int | None = None,
) -> Launch:  # fmt: skip
    """out f32 [rows, k] of tokens int32 [rows].

    Args:
        first: which token the weight's first row is of.
        vocabulary: how many tokens there are. Default: as many as rows of the weight.
    """
    form, limit = weight.format, weight.n if vocabulary is None else vocabulary
    sizes = (weight.k, weight.n, weight.group_bytes)
    how = (form.bits, form.group, NUMBERS[form.kind], int(form.symmetric))
    args = EmbeddingArgs(weight.view, tokens, out, rows.count, *sizes, *how, first, limit)
    return Launch(KERNEL, args)
