"""take_rows: out[i] = x[index[i]], for the rows of a step whose logits are wanted.

x [rows, width] f32, index int32 [count], out [count, width] f32, bf16 or codes (see
`kernels.quantize`), or both int32; on CUDA x and out may each be f32, f16 or bf16. An index outside
x is an error: on the CPU the kernel fails with code 1, on CUDA its row is NaN.
"""

from __future__ import annotations

import numpy as np


def reference(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """x f32 [rows, width], index int32 [count] -> f32 [count, width]."""
    return x[index]
