"""The launch of take_rows on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.quantize import Codes
from nanocupy.kernels.quantize.cpu import rounding

KERNEL = CpuKernel("take_rows:take_rows")


def launch(
    device: Any, out: Any, x: Any, index: Any, rows: Rows, *, codes: Codes | None = None
) -> Launch:
    """out[i] = x[index[i]] for i below the number of `rows`.

    Args:
        codes: how rows are rounded, out being uint8. Default: to the dtype of out.
    """
    words = out.view(np.float32) if out.dtype == np.int32 else out  # ints are copied as they are
    finish = rounding(words, codes, x.shape[1])
    return Launch(KERNEL, (out, x, index, rows.count, *x.shape, *finish))
