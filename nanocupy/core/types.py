"""Questions about dtypes, as `mlx.core` has them: `issubdtype(x.dtype, mx.floating)` and so on."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from nanocupy.core.array import array
from nanocupy.core.dtype import Dtype, named
from nanocupy.core.dtypes import common


def finfo(dtype: Any) -> Any:
    """`numpy.finfo`, of bfloat16, too."""
    kind = np.dtype(dtype)
    if kind.kind not in "fV":
        raise ValueError(f"[finfo] {kind}: expected floats")
    return ml_dtypes.finfo(kind)


class DtypeCategory:
    """Some kinds of dtypes: b bool, i int, u unsigned, f float ('V' where NumPy does not know it),
    c complex, of which there are none."""

    def __init__(self, name: str, kinds: str) -> None:
        self.name, self.kinds = name, frozenset(kinds)

    def __repr__(self) -> str:
        return self.name


generic = DtypeCategory("generic", "biufVc")
number = DtypeCategory("number", "iufVc")
integer = DtypeCategory("integer", "iu")
signedinteger = DtypeCategory("signedinteger", "i")
unsignedinteger = DtypeCategory("unsignedinteger", "u")
inexact = DtypeCategory("inexact", "fVc")
floating = DtypeCategory("floating", "fV")

_KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "fV",
    "complex floating": "c",
    "numeric": "iufVc",
}


def issubdtype(first: Any, second: Any) -> bool:
    """Whether the first dtype or category is in the second."""
    if not isinstance(second, DtypeCategory):
        return not isinstance(first, DtypeCategory) and np.dtype(first) == np.dtype(second)
    kinds = first.kinds if isinstance(first, DtypeCategory) else {np.dtype(first).kind}
    return kinds <= second.kinds


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: a dtype, one of the array API's names, or a tuple of these."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ValueError(f"[isdtype] kind={kind!r}: expected one of {tuple(_KINDS)}")
        return np.dtype(dtype).kind in _KINDS[kind]
    return bool(np.dtype(dtype) == np.dtype(kind))


def result_type(*values: Any) -> np.dtype[Any]:
    """What arrays and dtypes become together."""
    if not values:
        raise ValueError("[result_type] give an array or a dtype")
    return named(common(*(v.node.dtype if isinstance(v, array) else np.dtype(v) for v in values)))


def can_cast(from_: Any, to: Any) -> bool:
    """Whether values of one dtype become the other where they meet it."""
    return result_type(from_, to) == np.dtype(to)


def iinfo(dtype: Any) -> Any:
    """`numpy.iinfo`."""
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        raise ValueError(f"[iinfo] {kind}: expected ints")
    return np.iinfo(kind)


__all__ = [
    "Dtype", "DtypeCategory", "can_cast", "finfo", "floating", "generic", "iinfo", "inexact",
    "integer", "isdtype", "issubdtype", "number", "result_type", "signedinteger",
    "unsignedinteger",
]  # fmt: skip
