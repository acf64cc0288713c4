"""`Dtype`: what `x.dtype` and `mx.float32` are. NumPy's dtype under MLX's names.

It equals NumPy's dtype, is found in its place in a dict, and NumPy takes it for one. Inside the
engine, graphs hold NumPy's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy import dtypes


class Dtype:
    """
    Attributes:
        dtype: NumPy's.
        size: bytes of one element.
    """

    __slots__ = ("_hash", "dtype", "itemsize", "kind", "name", "size", "str", "type")

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.kind, self.name, self.type = self.dtype.kind, self.dtype.name, self.dtype.type
        self.itemsize = self.size = self.dtype.itemsize
        self.str, self._hash = self.dtype.str, hash(self.dtype)

    def __eq__(self, other: object) -> bool:
        if other is self or other is None:
            return other is self
        return bool(self.dtype == (other.dtype if isinstance(other, Dtype) else other))

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return repr(self.dtype)

    def __str__(self) -> str:
        return self.name

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "dtype"), name)

    def __reduce__(self) -> Any:
        return named, (self.dtype,)


_NAMED: dict[np.dtype[Any], Dtype] = {}


def named(dtype: np.dtype[Any]) -> Any:
    """The Dtype of NumPy's dtype, one for each."""
    found = _NAMED.get(dtype)
    if found is None:
        found = _NAMED.setdefault(dtype, Dtype(dtype))
    return found


def plain(dtype: Any) -> np.dtype[Any]:
    """NumPy's dtype of what names one."""
    return dtype.dtype if type(dtype) is Dtype else np.dtype(dtype)


bool_ = named(dtypes.bool_)
int8, int16, int32, int64 = map(named, (dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64))
uint8, uint16 = named(dtypes.uint8), named(dtypes.uint16)
uint32, uint64 = named(dtypes.uint32), named(dtypes.uint64)
float16, float32, float64 = map(named, (dtypes.float16, dtypes.float32, dtypes.float64))
bfloat16 = named(dtypes.bfloat16)
