"""`take`: rows, or other parts of an array, by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.recorder import rowwise
from nanocupy.core.recorder.arrays import array, as_array, eval, record
from nanocupy.core.recorder.casting import rounded
from nanocupy.core.recorder.graph import CONSTANT, Op
from nanocupy.core.recorder.shapes import Misfit, flat
from nanocupy.core.recorder.specs import normal_axis
from nanocupy.core.recorder.tracing import recording

TAKE = Op(
    "take",
    lambda x, i, *, axis, dtype=None, codes=None: rounded(
        ((*x[0][:axis], *i[0], *x[0][axis + 1 :]), x[1]), dtype, codes
    ),
    lambda x, i, *, axis, dtype=None: np.take(x, i, axis).astype(dtype or x.dtype),
    rowwise.take,
)


def take(x: Any, /, indices: Any, axis: int | None = None) -> array:
    """`numpy.take`."""
    x, axis = flat(x, axis)
    place, indices = normal_axis("take", axis, x.ndim), as_indices("take", indices)
    if indices.node.op is CONSTANT:
        check_indices("take", indices, int(x.shape[place]))
    return record(TAKE, x, indices, axis=place)


def check_indices(name: str, indices: array, length: int) -> None:
    """
    Raises:
        Misfit: one is outside of an axis of this length, if they are known: those that a
            function under recording computes are looked at when it runs.
    """
    value = _known(indices)
    if value is None or not value.size:
        return
    low, high = int(value.min()), int(value.max())
    if not -length <= low <= high < length:
        raise Misfit(
            f"[{name}] index {low if low < -length else high} of an axis of length {length}"
        )


def _known(x: array) -> np.ndarray | None:
    if x.node.op is not CONSTANT:
        if recording():
            return None
        try:
            eval(x)
        except NotImplementedError:  # of a Program
            return None
    return np.asarray(x.node.attrs["value"])


def as_indices(name: str, indices: Any) -> array:
    """An array of ints.

    Raises:
        ValueError: it is one of something else.
    """
    found = as_array(indices)
    if found.dtype.kind not in "iu":
        raise ValueError(f"[{name}] indices of {found.dtype}: expected ints")
    return found
