"""take_rows: out[i] = x[index[i]], the rows of a step whose logits are wanted.

x [rows, width] f32, index int32 [count], out [count, width] f32
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.base import Launch
from nanocupy.kernels.base import CpuKernel

CPU = CpuKernel("take_rows:take_rows")
CUDA = "take_rows"


def reference(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """x f32 [rows, width], index int32 [count] -> f32 [count, width]."""
    return x[index]


def launch(out: Any, x: Any, index: Any, count: Any) -> Launch:
    """out[i] = x[index[i]] for i below `count` (int64 [1]).

    The kernel fails with code 1 on an index outside x.
    """
    rows, width = x.shape
    return Launch(CPU, (out, x, index, count, rows, width))
