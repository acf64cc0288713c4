"""Information about dtypes, as in `mlx.core`: `issubdtype(x.dtype, mx.floating)` and so on."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from nanocupy.core.recorder.arrays import array
from nanocupy.core.recorder.dtypes import Dtype, common, named, plain
from nanocupy.dtypes import KINDS


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


def _known(name: str, dtype: Any) -> np.dtype[Any]:
    """NumPy's dtype of an array or of a dtype that arrays have."""
    try:
        found = dtype.node.dtype if isinstance(dtype, array) else plain(dtype)
    except TypeError:
        found = None
    if dtype is None or found is None or found not in KINDS:
        raise ValueError(f"[{name}] {str(dtype)[:40]!r}: expected a dtype of arrays")
    return found


def issubdtype(first: Any, second: Any) -> bool:
    """Whether the first dtype or category is in the second."""
    if not isinstance(second, DtypeCategory):
        same = _known("issubdtype", second)
        return not isinstance(first, DtypeCategory) and _known("issubdtype", first) == same
    if isinstance(first, DtypeCategory):
        return first.kinds <= second.kinds
    return _known("issubdtype", first).kind in second.kinds


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: a dtype, one of the array API's names, or a tuple of these."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ValueError(f"[isdtype] kind={kind[:40]!r}: expected one of {tuple(_KINDS)}")
        return _known("isdtype", dtype).kind in _KINDS[kind]
    return _known("isdtype", dtype) == _known("isdtype", kind)


def result_type(*values: Any) -> Dtype:
    """Return the dtype that arrays and dtypes promote to."""
    if not values:
        raise ValueError("[result_type] give an array or a dtype")
    found: Dtype = named(common(*(_known("result_type", v) for v in values)))
    return found


def can_cast(from_: Any, to: Any) -> bool:
    """Whether values of one dtype become the other where they meet it."""
    return bool(result_type(from_, to) == _known("can_cast", to))


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
