"""New arrays, as `mlx.core` makes them: float32 unless told, int32 where they count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core.array import array, as_array, bool_, float32, int32, record
from nanocupy.core.dtypes import astype
from nanocupy.core.graph import Op
from nanocupy.core.specs import same

Dims = int | Sequence[int]


def full(shape: Dims, vals: Any, dtype: Any = None) -> array:
    """`vals` everywhere; takes no memory until something writes it out."""
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    return array(np.broadcast_to(array(vals, dtype).numpy(), dims))


def zeros(shape: Dims, dtype: Any = float32) -> array:
    """`full` of zeros."""
    return full(shape, 0.0, dtype or float32)


def ones(shape: Dims, dtype: Any = float32) -> array:
    """`full` of ones."""
    return full(shape, 1.0, dtype or float32)


def full_like(x: Any, vals: Any, dtype: Any = None) -> array:
    """`full` in the shape of x, and its dtype unless told."""
    x = as_array(x)
    return full(x.shape, vals, dtype or x.dtype)


def zeros_like(x: Any, /, dtype: Any = None) -> array:
    """`full_like` of zeros."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, /, dtype: Any = None) -> array:
    """`full_like` of ones."""
    return full_like(x, 1, dtype)


empty, empty_like = zeros, zeros_like


def asarray(x: Any, dtype: Any = None, *, copy: bool | None = None) -> array:
    """x as an array; itself if it is one and nothing is asked of it. Arrays never change in place,
    so that a copy is only made where the dtype changes."""
    x = as_array(x)
    return x if dtype is None else astype(x, dtype)


def from_dlpack(x: Any, /, *, copy: bool | None = None) -> array:
    """What speaks DLPack as an array."""
    return array(np.from_dlpack(x))


def arange(
    start: float, stop: float | None = None, step: float | None = None, dtype: Any = None
) -> array:
    """`numpy.arange`; of ints int32, else float32, unless told."""
    start, stop, step = (0, start, step) if stop is None else (start, stop, step)
    step = 1 if step is None else step
    if dtype is None:
        whole = all(isinstance(v, int | np.integer) for v in (start, stop, step))
        dtype = int32 if whole else float32
    if dtype == bool_:
        raise ValueError("[arange] of bools")
    count = max(math.ceil((stop - start) / step), 0)
    values = start + step * np.arange(count)
    return array(values.astype(dtype))


def linspace(
    start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = float32
) -> array:
    """`numpy.linspace`, in float32 and then in `dtype`."""
    parts = num - 1 if endpoint else num
    t = np.arange(num, dtype=np.float32) / np.float32(max(parts, 1))
    values = (1 - t) * np.float32(start) + t * np.float32(stop)
    if endpoint and num > 1:
        values[-1] = stop
    return array(values.astype(dtype or float32))


def eye(n: int, m: int | None = None, k: int = 0, dtype: Any = float32) -> array:
    """Ones on the kth diagonal."""
    return array(np.eye(n, m, k, dtype or float32))


def identity(n: int, dtype: Any = float32) -> array:
    """`eye` of a square."""
    return eye(n, dtype=dtype)


def tri(n: int, m: int | None = None, k: int = 0, dtype: Any = None) -> array:
    """Ones on the kth diagonal and below."""
    return array(np.tri(n, m, k, dtype or float32))


def _below(x: np.ndarray, k: int) -> np.ndarray:
    """Where in its matrices the kth diagonal is, and what is below it."""
    rows, columns = x.shape[-2:]
    return np.tri(rows, columns, k, np.bool_)


_TRIL = Op("tril", same, lambda x, *, k: np.where(_below(x, k), x, x.dtype.type(0)))
_TRIU = Op("triu", same, lambda x, *, k: np.where(_below(x, k - 1), x.dtype.type(0), x))


def tril(x: Any, k: int = 0) -> array:
    """x with zeros above the kth diagonal."""
    return record(_TRIL, _matrix("tril", x), k=k)


def triu(x: Any, k: int = 0) -> array:
    """x with zeros below the kth diagonal."""
    return record(_TRIU, _matrix("triu", x), k=k)


def _matrix(name: str, x: Any) -> array:
    x = as_array(x)
    if x.ndim < 2:
        raise ValueError(f"[{name}] of {x.ndim} dimensions: at least two")
    return x


# ---- windows


def _window(name: str) -> Callable[[int], array]:
    def call(size: int) -> array:
        return array(getattr(np, name)(size).astype(float32))

    call.__name__, call.__doc__ = name, f"`numpy.{name}`."
    return call


bartlett, blackman, hamming, hanning = map(_window, ("bartlett", "blackman", "hamming", "hanning"))
