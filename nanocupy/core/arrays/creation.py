"""New arrays, as `mlx.core` makes them: float32 unless told, int32 where they count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array, record, shared
from nanocupy.core.recorder.casting import checked_cast
from nanocupy.core.recorder.graph import Op, Shape
from nanocupy.core.recorder.specs import elements, same_spec, whole_number
from nanocupy.core.recorder.values import cast
from nanocupy.device.protocols import Rows
from nanocupy.dtypes import bool_, float32

Dims = int | Sequence[int]
_LARGE = 1 << 16  # bytes
_NUMBERS = (int, float, np.integer, np.floating)
_MOST = 2**31 - 1  # elements of a range


def checked_shape(name: str, shape: Any) -> Shape:
    """A shape given as an int or as ints."""
    if isinstance(shape, array):
        shape = shape.tolist()
    dims = (shape,) if hasattr(shape, "__index__") else shape
    if not isinstance(dims, list | tuple):
        raise TypeError(f"[{name}] shape={str(shape)[:60]}: expected an int, or some")
    return tuple(
        d if isinstance(d, Rows) else whole_number(name, "shape", d, least=0) for d in dims
    )


def full(shape: Dims, vals: Any, dtype: Any = None) -> array:
    """`vals` everywhere; a large one takes no memory until something writes it out."""
    dims = checked_shape("full", shape)
    value = np.array((array(vals) if dtype is None else checked_cast(vals, dtype)).numpy())
    wide = np.broadcast_to(value, dims)
    return shared(wide if elements(dims) * value.itemsize > _LARGE else np.array(wide))


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
    """x as an array; itself if it is one and nothing is asked of it.

    Args:
        copy: False is a ValueError: what is no array is copied, and an array has no other one that
            changes with it.
    """
    _no_sharing("asarray", copy)
    made = array(x, dtype)
    return record(_COPY, made) if copy and isinstance(x, array) else made


_COPY = Op("copy", same_spec, lambda x: np.array(x, order="C"))


def from_dlpack(x: Any, /, *, copy: bool | None = None) -> array:
    """A copy of what speaks DLPack; `copy` as for `asarray`.

    Raises:
        ValueError: it lies elsewhere than in this machine's memory.
    """
    _no_sharing("from_dlpack", copy)
    try:
        host = np.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        raise ValueError(f"[from_dlpack] of {type(x).__name__}: {error}"[:300]) from error
    return array(host)


def _no_sharing(name: str, copy: bool | None) -> None:
    if copy is False:
        raise ValueError(f"[{name}] copy=False: an array's memory is its own: leave copy out")


def arange(
    start: float | None = None,
    stop: float | None = None,
    step: float | None = None,
    dtype: Any = None,
) -> array:
    """`numpy.arange`; of ints int32, or int64 where one needs it, else float32, unless told."""
    if start is None or stop is None:
        if stop is start:
            raise TypeError("[arange] give stop")
        start, stop = 0, start if stop is None else stop
    step = 1 if step is None else step
    if odd := [v for v in (start, stop, step) if not isinstance(v, _NUMBERS)]:
        raise TypeError(f"[arange] {type(odd[0]).__name__} given: expected numbers")
    if any(isinstance(v, bool) for v in (start, stop, step)):
        raise ValueError("[arange] of bools")
    whole = all(isinstance(v, int | np.integer) for v in (start, stop, step))
    if dtype is None:
        dtype = array([int(start), int(stop), int(step)]).dtype if whole else float32
    dtype = np.dtype(dtype)
    if dtype == bool_:
        raise ValueError("[arange] of bools")
    count = _count(start, stop, step, whole)
    if (
        dtype.kind in "iu" and count > 1
    ):  # as NumPy and MLX: the first two are cast, and the others follow
        first, step = int(start), int(start + step) - int(start)
        return shared((first + step * np.arange(count, dtype=np.int64)).astype(dtype))
    steps = step * np.arange(count) if count > 1 else np.zeros(count)
    return shared((start + steps).astype(dtype))


def _count(start: Any, stop: Any, step: Any, whole: bool) -> int:
    if step == 0 or math.isnan(step) or not (math.isfinite(start) and math.isfinite(stop)):
        raise ValueError(
            f"[arange] from {start} to {stop} by {step}: expected finite numbers, and a step that "
            "is not 0"
        )
    if math.isinf(step):
        return int((stop - start) * step > 0)
    count = -((start - stop) // step) if whole else math.ceil((stop - start) / step)
    if count > _MOST:
        raise ValueError(f"[arange] from {start} to {stop} by {step}: {count} elements")
    return max(int(count), 0)


def linspace(
    start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = float32
) -> array:
    """`numpy.linspace`, in float32 (of float64, in that) and then in `dtype`."""
    num = whole_number("linspace", "num", num, least=0)
    if not isinstance(endpoint, bool):
        raise TypeError(f"[linspace] endpoint={str(endpoint)[:40]}: expected a bool")
    kind, parts = np.dtype(dtype or float32), num - 1 if endpoint else num
    number: Any = np.float64 if kind == np.float64 else np.float32
    t = np.arange(num, dtype=number) / number(max(parts, 1))
    with np.errstate(all="ignore"):
        values = (1 - t) * number(start) + t * number(stop)
    if endpoint and num > 1:
        values[-1] = stop
    return shared(cast(values, kind))


def eye(n: int, m: int | None = None, k: int = 0, dtype: Any = float32) -> array:
    """Ones on the kth diagonal."""
    n = whole_number("eye", "n", n, least=0)
    m = n if m is None else whole_number("eye", "m", m, least=0)
    return shared(np.eye(n, m, whole_number("eye", "k", k), dtype or float32))


def identity(n: int, dtype: Any = float32) -> array:
    """`eye` of a square."""
    return eye(n, dtype=dtype)


def tri(n: int, m: int | None = None, k: int = 0, dtype: Any = None) -> array:
    """Ones on the kth diagonal and below."""
    n = whole_number("tri", "n", n, least=0)
    m = n if m is None else whole_number("tri", "m", m, least=0)
    return shared(np.tri(n, m, whole_number("tri", "k", k), dtype or float32))


def _below(x: np.ndarray, k: int) -> np.ndarray:
    """Where in its matrices the kth diagonal is, and what is below it."""
    rows, columns = x.shape[-2:]
    return np.tri(rows, columns, k, np.bool_)


_TRIL = Op("tril", same_spec, lambda x, *, k: np.where(_below(x, k), x, x.dtype.type(0)))
_TRIU = Op("triu", same_spec, lambda x, *, k: np.where(_below(x, k - 1), x.dtype.type(0), x))


def tril(x: Any, k: int = 0) -> array:
    """x with zeros above the kth diagonal."""
    return record(_TRIL, _matrix("tril", x), k=whole_number("tril", "k", k))


def triu(x: Any, k: int = 0) -> array:
    """x with zeros below the kth diagonal."""
    return record(_TRIU, _matrix("triu", x), k=whole_number("triu", "k", k))


def _matrix(name: str, x: Any) -> array:
    x = as_array(x)
    if x.ndim < 2:
        raise ValueError(f"[{name}] of {x.ndim} dimensions: at least two")
    return x


# ---- windows


def _window(name: str) -> Callable[[int], array]:
    def call(M: int) -> array:
        size = max(whole_number(name, "M", M), 0)
        return shared(getattr(np, name)(size).astype(float32))

    call.__name__, call.__doc__ = name, f"`numpy.{name}`."
    return call


bartlett, blackman, hamming, hanning = map(_window, ("bartlett", "blackman", "hamming", "hanning"))
