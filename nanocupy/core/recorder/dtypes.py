"""The dtypes of arrays, and which dtype a result has: MLX's rules.

Graphs hold NumPy's dtypes (`nanocupy.dtypes`). `x.dtype` and `mx.float32` are a `Dtype`:
NumPy's dtype under MLX's names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.dtypes import float32, int32, uint32


class Dtype:
    """A dtype as users see it. It equals NumPy's dtype, has its hash, and NumPy accepts it as one.

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
    """Return the Dtype of NumPy's dtype, always the same object."""
    found = _NAMED.get(dtype)
    if found is None:
        found = _NAMED.setdefault(dtype, Dtype(dtype))
    return found


def plain(dtype: Any) -> np.dtype[Any]:
    """Return NumPy's dtype for a Dtype, a name or a type."""
    return dtype.dtype if type(dtype) is Dtype else np.dtype(dtype)


# ---- which dtype a result has


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype if it is one of floats, else float32."""
    return dtype if dtype.kind in "fV" else float32


def common(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that values of these dtypes have together.

    Ints never widen floats: int32 with float16 is float16. Nothing becomes float64 by itself.
    """
    if dtypes.count(dtypes[0]) == len(dtypes):
        return dtypes[0]
    floats = {d for d in dtypes if d.kind in "fV"}
    if len(floats) == 1:
        return floats.pop()
    if floats:  # float16 and bfloat16 meet in float32
        return max(*floats, float32, key=lambda d: d.itemsize)
    found = np.result_type(*dtypes)
    return float32 if found.kind == "f" else found


def summed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of sums: small ints are summed in 32 bits."""
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize < 4):
        return uint32 if dtype.kind == "u" else int32
    return dtype
