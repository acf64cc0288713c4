"""Arrays and numbers brought to one dtype.

A Python number takes the dtype of the array it meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.core.recorder import rowwise
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.dtypes import common, plain
from nanocupy.core.recorder.graph import Op, Spec, width
from nanocupy.core.recorder.rowwise import kernel_or_chain, steps_of
from nanocupy.core.recorder.values import NUMBERS, can_hold
from nanocupy.dtypes import bool_, float32
from nanocupy.kernels.quantize import Codes

_UNCHANGED = steps_of("unchanged")
ASTYPE = Op(
    "astype",
    lambda spec, *, dtype: (spec[0], dtype),
    lambda x, *, dtype: x.astype(dtype, order="C"),
    kernel_or_chain(_UNCHANGED, rowwise.cast),
    row_wise=True,
    steps=_UNCHANGED,
)


def astype(x: Any, dtype: Any) -> array:
    """x in another dtype; x itself if it has it already."""
    if dtype is None:
        raise TypeError("[astype] dtype=None: expected a dtype")
    x, wanted = as_array(x), plain(dtype)
    return x if x.node.specs[0][1] == wanted else record(ASTYPE, x, dtype=wanted)


def as_weak(value: Any, dtype: np.dtype[Any]) -> array:
    """Return a number as an array of the dtype that it is combined with, if that has its kind.

    Raises:
        ValueError: an int that is too large for a dtype of ints.
    """
    if dtype.kind in "fV" and type(value) in NUMBERS:
        return array(value, dtype)
    if isinstance(value, float):
        return array(float(value), dtype if dtype.kind in "fV" else float32)
    if isinstance(value, np.ndarray | np.generic):
        return _numpy_as_weak(np.asarray(value), dtype)
    if isinstance(value, bool):
        return array(value, dtype)
    if dtype == bool_:
        return array(value)
    if not can_hold(dtype, value, value):
        if not -(2**63) <= value < 2**64:
            return array(value)
        raise ValueError(
            f"[array] {str(value)[:40]} meets {dtype}, in which it would overflow: cast the array "
            "to a wider dtype"
        )
    return array(value, dtype)


def _numpy_as_weak(value: np.ndarray, dtype: np.dtype[Any]) -> array:
    """Treat NumPy's values as Python's numbers; ints that are too large keep their dtype."""
    kind = value.dtype.kind
    if kind in "iu" and dtype.kind in "iu" and value.size:
        return array(value, dtype if can_hold(dtype, value.min(), value.max()) else None)
    same = kind == "b" or dtype.kind in "fV" or (kind in "iu" and dtype.kind in "iu")
    return array(value, dtype if same and kind in "biufV" else None)


def checked_cast(value: Any, dtype: Any) -> array:
    """Return the value in a dtype: arrays are cast, an int that is too large is a ValueError."""
    dtype = plain(dtype)
    return astype(_as_array(value, dtype), dtype)


_WEAK = (bool, int, float, np.ndarray, np.generic)


def promote(values: Sequence[Any]) -> list[array]:
    """Return the values as arrays of one dtype: numbers take that of the arrays."""
    found = [v.node.specs[0][1] for v in values if type(v) is array]
    if found and found.count(found[0]) == len(found):
        if len(found) == len(values):
            return list(values)
        dtype = found[0]
    else:
        weak = [isinstance(v, _WEAK) for v in values]
        if all(weak):
            weak = [False] * len(weak)
        values = [v if w else as_array(v) for v, w in zip(values, weak, strict=True)]
        dtype = common(*[v.dtype for v in values if type(v) is array])
    made = [v if type(v) is array else _as_array(v, dtype) for v in values]
    dtype = common(*[a.dtype for a in made])
    return [astype(a, dtype) for a in made]


def _as_array(value: Any, dtype: np.dtype[Any]) -> array:
    return as_weak(value, dtype) if isinstance(value, _WEAK) else as_array(value)


def rounded(spec: Spec, dtype: Any, codes: Codes | None) -> Spec:
    """Return the spec of rows that their operation rounds: to a dtype, to codes, or not at all."""
    shape, own = spec
    if codes:
        return (shape[0], codes.row_bytes(width(shape))), np.dtype(np.uint8)
    return shape, dtype or own
