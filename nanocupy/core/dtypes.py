"""Which dtype a result has: MLX's rules.

Ints never widen floats (int32 with float16 is float16), nothing becomes float64 by itself, and a
Python number takes the dtype of the array it meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.core import rowwise
from nanocupy.core.array import array, as_array, bool_, float32, int32, record, uint32
from nanocupy.core.chains import lowering
from nanocupy.core.graph import Op, Spec, width
from nanocupy.kernels.functions import unchanged
from nanocupy.kernels.quantize import Codes

ASTYPE = Op(
    "astype",
    lambda spec, *, dtype: (spec[0], dtype),
    lambda x, *, dtype: x.astype(dtype, order="C"),
    lowering(unchanged, rowwise.cast),
    row_wise=True,
    steps=unchanged,
)


def astype(x: Any, dtype: Any) -> array:
    """x in another dtype; x itself if it has it already."""
    x = as_array(x)
    return x if x.dtype == np.dtype(dtype) else record(ASTYPE, x, dtype=np.dtype(dtype))


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.kind in "fV" else float32


def common(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """What values of these dtypes become together: MLX's rule, in which ints never widen floats."""
    floats = {d for d in dtypes if d.kind in "fV"}
    if len(floats) == 1:
        return floats.pop()
    if floats:  # float16 and bfloat16 meet in float32
        return max(*floats, float32, key=lambda d: d.itemsize)
    found = np.result_type(*dtypes)
    return float32 if found.kind == "f" else found


def _number(value: bool | int | float, dtype: np.dtype[Any]) -> array:
    """A Python number in the dtype of the arrays it meets, unless those cannot hold its kind."""
    if isinstance(value, bool):
        return array(value, dtype)
    if isinstance(value, int):
        return array(value, int32 if dtype == bool_ else dtype)
    return array(value, dtype if dtype.kind in "fV" else float32)


def together(values: Sequence[Any]) -> list[array]:
    """The values as arrays of one dtype."""
    found = [v.node.specs[0][1] for v in values if type(v) is array]
    if len(found) == len(values) and found.count(found[0]) == len(found):
        return list(values)
    number = [isinstance(v, bool | int | float) for v in values]
    if not all(number):
        arrays = [as_array(v) for v, plain in zip(values, number, strict=True) if not plain]
        dtype = common(*(a.dtype for a in arrays))
        values = [_number(v, dtype) if n else v for v, n in zip(values, number, strict=True)]
    made = [as_array(v) for v in values]
    dtype = common(*(a.dtype for a in made))
    return [astype(a, dtype) for a in made]


def rounded(spec: Spec, dtype: Any, codes: Codes | None) -> Spec:
    """What rows of `spec` are once the operation that makes them has rounded them: to a dtype, to
    codes, or (None, None) not at all."""
    shape, own = spec
    if codes:
        return (shape[0], codes.row_bytes(width(shape))), np.dtype(np.uint8)
    return shape, dtype or own


def summed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Small ints are summed in 32 bits."""
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize < 4):
        return uint32 if dtype.kind == "u" else int32
    return dtype
