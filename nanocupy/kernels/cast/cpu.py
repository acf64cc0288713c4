"""The launch of cast on a CPU: the kernel of `quantize` also rounds to bf16."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.quantize.cpu import KERNEL, rounding

DTYPES = (np.dtype(ml_dtypes.bfloat16),)
"""What rows can be rounded to."""


def launch(
    device: Any, out: Any, x: Any, rows: Rows, width: int, *, x_stride: int | None = None
) -> Launch:
    """out = x on the first `rows` rows, in out's dtype; x's are `x_stride` elements apart."""
    apart = 4 * (width if x_stride is None else x_stride)
    return Launch(KERNEL, (x, out, rows.count, width, apart, *rounding(out, None, width)))
