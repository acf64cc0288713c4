"""columns: out[r, to[j]] = x[r, source[j]], for elements that change places inside rows.

x, out rows of f32 or int32; source, to int32 [count]. The caller makes sure that they are inside
the rows. All other elements of out keep their values.
"""

from __future__ import annotations

import numpy as np


def reference(out: np.ndarray, x: np.ndarray, source: np.ndarray, to: np.ndarray) -> np.ndarray:
    """A copy of out with columns `source` of x in columns `to`."""
    out = out.copy()
    out[:, to] = x[:, source]
    return out
