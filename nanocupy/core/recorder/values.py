"""What becomes an array: Python's numbers and lists, NumPy's arrays, buffers.

An array's memory is its own. What comes in is copied, so that its owner may use that memory
again; `arrays.shared` takes memory that nobody else changes as it is.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from nanocupy.dtypes import KINDS

_INT32 = np.iinfo(np.int32)
_INT64 = np.iinfo(np.int64)
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_KNOWN = frozenset(KINDS)
_BYTES = (bytes, bytearray)
NUMBERS = frozenset({bool, int, float})
_LARGEST = float(np.finfo(np.float32).max)


def host_copy(value: Any, dtype: Any = None) -> np.ndarray:
    """Return a NumPy array of the value that shares no memory with it.

    Python floats are float32, as is NumPy's float64; ints are int32, or int64 where one needs it.

    Raises:
        TypeError: the value is None.
        ValueError: it is no number, list of numbers or array; an int is too large.
    """
    if type(value) in NUMBERS:
        return _number(value, dtype)
    if isinstance(value, list | tuple):
        return _of_list(value, dtype)
    if value is None:
        raise TypeError("[array] None: expected a number, a list of numbers or an array")
    if isinstance(value, _BYTES):
        value = np.frombuffer(value, np.uint8)
    host = checked_dtype(np.array(value, order="C"), value)
    if dtype is not None:
        return cast(host, dtype)
    return host.astype(_FLOAT32) if host.dtype == _FLOAT64 else host


def checked_dtype(host: np.ndarray, value: Any) -> np.ndarray:
    """Return the array in this machine's byte order.

    Raises:
        ValueError: there are no arrays of its dtype.
    """
    if host.dtype in _KNOWN:
        return host
    native = host.dtype.newbyteorder("=")
    if native in _KNOWN:
        return host.astype(native)
    if native.kind not in "cfV":
        raise ValueError(
            f"[array] {type(value).__name__} given: expected a number, a list of some or an array"
        )
    raise ValueError(
        f"[array] dtype {host.dtype} of {_shown(value)}: expected one of "
        f"{', '.join(map(str, KINDS))}: cast it"
    )


def cast(host: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the array in another dtype; values outside of it become something, as in C."""
    if host.dtype == dtype:
        return host
    with np.errstate(all="ignore"):
        return host.astype(dtype)


def can_hold(dtype: np.dtype[Any], low: Any, high: Any) -> bool:
    """Whether a dtype can hold the ints from low to high."""
    if dtype.kind == "b":
        return low >= 0 and high <= 1
    limits = np.iinfo(dtype)
    return bool(limits.min <= low and high <= limits.max)


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {reprlib.repr(value)}"[:60]


def _number(value: bool | int | float, dtype: Any) -> np.ndarray:
    kind = type(value)
    floats = dtype is not None and dtype == _FLOAT32
    if (floats or (dtype is None and kind is float)) and -_LARGEST <= value <= _LARGEST:
        return np.array(value, _FLOAT32)
    wanted = None if dtype is None else np.dtype(dtype)
    if kind is bool:
        return np.array(value, wanted)
    if kind is int and (wanted is None or wanted.kind in "biu"):
        return _ints(_as_int64(value), wanted, value)
    try:
        return cast(np.array(float(value)), _FLOAT32 if wanted is None else wanted)
    except OverflowError:
        raise _too_large(value) from None


def _as_int64(value: Any) -> np.ndarray:
    if not _INT64.min <= value < 2**64:
        raise _too_large(value)
    return np.array(value)


def _of_list(value: Any, dtype: Any) -> np.ndarray:
    try:
        host = np.array(value)
    except OverflowError:
        raise _too_large(value) from None
    kind = host.dtype.kind
    numbers = kind in "Ou" or host.dtype == _FLOAT64  # what NumPy makes of ints beyond int64, too
    if numbers and host.size and all(type(leaf) is int for leaf in _leaves(value)):
        if kind != "u" or dtype is None:
            raise _too_large(value)
    elif kind == "O" and all(isinstance(leaf, int | float) for leaf in _leaves(value)):
        host = host.astype(np.float64)
    host = checked_dtype(host, value)
    if host.dtype.kind in "iu" and host.size:
        return _ints(host, dtype, value)
    if dtype is not None:
        return cast(host, dtype)
    return cast(host, _FLOAT32) if host.dtype == _FLOAT64 else host


def _ints(host: np.ndarray, dtype: Any, value: Any) -> np.ndarray:
    low, high = (int(host), int(host)) if not host.ndim else (host.min(), host.max())
    small = _INT32.min <= low and high <= _INT32.max
    if dtype is None:
        if host.dtype.kind == "u" and host.dtype.itemsize == 8:
            raise _too_large(value)
        return host.astype(np.int32) if small and host.dtype == np.int64 else host
    wanted = np.dtype(dtype)
    if wanted.kind in "iu" and not small and not can_hold(wanted, low, high):
        raise ValueError(
            f"[array] {_shown(value)} as {wanted}: an int in it does not fit: give a wider dtype"
        )
    return cast(host, wanted)


def _too_large(value: Any) -> ValueError:
    try:
        shown = _shown(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        shown = type(value).__name__
    return ValueError(
        f"[array] {shown}: an int beyond int64, [-2**63, 2**63): give it as a float, or as "
        "numbers below 2**64 with dtype=uint64"
    )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for child in value:
            yield from _leaves(child)
    else:
        yield value
