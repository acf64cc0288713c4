"""An array here and in MLX, and one answer: what tests beside MLX share.

On Linux MLX belongs to the tests (`pip install '.[test]'`): without it they fail. Elsewhere what
imports this module is skipped.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nanocupy.core as ours

if sys.platform != "linux":
    pytest.skip("MLX is a test dependency on Linux only", allow_module_level=True)
theirs = importlib.import_module("mlx.core")

FLOATS = ("float32", "float16", "bfloat16")
INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
ALL = (*FLOATS, *INTS, "bool_")
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 2.5, float("nan"), float("inf"), -float("inf"))
TOLERANCE = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


class Pair:
    """An array here and in MLX, of the same elements; perhaps with strides."""

    def __init__(self, values: np.ndarray, dtype: str, view: str = "") -> None:
        wide = values.astype(np.float32) if dtype in FLOATS else values
        self.ours = ours.array(wide).astype(getattr(ours, dtype))
        self.theirs = theirs.array(wide).astype(getattr(theirs, dtype))
        if view and values.ndim:
            key = {"reversed": slice(None, None, -1), "steps": slice(None, None, 2)}.get(view)
            self.ours = self.ours.T if key is None else self.ours[..., key]
            self.theirs = self.theirs.T if key is None else self.theirs[..., key]

    def __repr__(self) -> str:
        return f"{self.ours!r} {list(self.ours.shape)}"


def same(mine: Any, other: Any, exact: bool = False, loose: bool = False) -> None:
    """The same shape, dtype and values, floats within the rounding of their dtype: relative, or of
    the largest there is, which for sums (`loose`) may be above one."""
    if isinstance(other, list | tuple):
        assert len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            same(a, b, exact, loose)
        return
    if not isinstance(other, theirs.array):
        assert type(mine) is type(other) and mine == other
        return
    name = str(other.dtype).removeprefix("mlx.core.")
    assert mine.shape == tuple(other.shape)
    assert str(mine.dtype) == str(mine.numpy().dtype) == name
    if name in ("float16", "bfloat16", "float32"):
        got, want = mine.numpy().astype(np.float32), np.array(other.astype(theirs.float32))
        limit = 0 if exact else TOLERANCE[name]
        finite = np.abs(want[np.isfinite(want)])
        most = float(finite.max(initial=0))
        np.testing.assert_allclose(
            got, want, rtol=limit, atol=limit * (max if loose else min)(most, 1.0), equal_nan=True
        )
    else:
        np.testing.assert_array_equal(mine.numpy(), np.array(other))


def both(call: Callable[[Any, Callable[[Pair], Any]], Any], **how: Any) -> None:
    """`call(module, side)` gives the same here and in MLX, or fails in both."""
    try:
        want = call(theirs, lambda pair: pair.theirs)
        theirs.eval(want)
    except (ValueError, IndexError, TypeError, RuntimeError):
        with pytest.raises((ValueError, IndexError, TypeError)):
            ours.eval(call(ours, lambda pair: pair.ours))
        return
    same(call(ours, lambda pair: pair.ours), want, **how)


def words(text: str) -> list[str]:
    return text.split()
