"""Random numbers from keys, as `mlx.core.random` has them: the same key gives the same numbers.

The generator is MLX's threefry2x32, to the bit: integers, booleans and permutations are equal to
MLX's, floats within rounding. A key is a uint32 array [2]; `split` makes keys of a key. Where no
key is given, a global one, which `seed` sets, is split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.core.arrays.creation import checked_shape
from nanocupy.core.arrays.dtype_info import finfo
from nanocupy.core.maths import elementwise, sorting, threefry
from nanocupy.core.maths.reductions import argmax, max, sum
from nanocupy.core.maths.scans import cumsum
from nanocupy.core.names import refuse
from nanocupy.core.recorder.arrays import array, as_array, eval, record, recording
from nanocupy.core.recorder.casting import astype
from nanocupy.core.recorder.dtypes import common
from nanocupy.core.recorder.graph import CONSTANT, Op
from nanocupy.core.recorder.public import public
from nanocupy.core.recorder.shapes import expand_dims, reshape, squeeze, take
from nanocupy.core.recorder.specs import broadcast, normal_axis, same_spec, whole_number
from nanocupy.core.recorder.values import can_hold
from nanocupy.dtypes import float32, int32, uint32

__all__ = [
    "bernoulli", "categorical", "gumbel", "key", "laplace", "multivariate_normal", "normal",
    "permutation", "randint", "seed", "split", "state", "truncated_normal", "uniform",
]  # fmt: skip

_INFINITY = np.float32(np.inf)
_BITS = Op("random_bits", lambda key, *, shape: (shape, uint32), threefry.bits)


# ---- keys


def key(seed: int) -> array:
    """The key of a number below 2**64."""
    seed = _checked_seed("key", seed)
    return array(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))


def _checked_seed(name: str, seed: Any) -> int:
    number = whole_number(name, "seed", seed, least=0)
    if number >= 2**64:
        raise ValueError(f"[{name}] seed={str(number)[:40]}: expected a number below 2**64")
    return number


state = [key(time.time_ns() // 1000)]
"""The key that is split where none is given: `inputs` and `outputs` of a compiled function that
draws numbers."""


@public
def split(key: Any, num: int = 2) -> array:
    """Make `num` keys of one: uint32 [num, 2]."""
    return record(_BITS, _checked(key), shape=(whole_number("split", "num", num, least=0), 2))


def _next() -> array:
    """Return a key split from the global one; inside a compiled function the split is recorded."""
    pair = split(state[0])
    if not recording():
        eval(pair)
    state[0] = pair[0]
    return pair[1]


def seed(seed: int) -> None:
    """Start the global key from a number below 2**64."""
    state[0] = key(_checked_seed("seed", seed))


def _checked(key: Any) -> array:
    if key is None:
        return _next()
    key = as_array(key)
    if key.shape != (2,) or key.dtype != uint32:
        raise ValueError(f"[random] a key is uint32 [2], not {key.dtype} {list(key.shape)}")
    return key


def _bits(shape: Any, key: Any) -> array:
    return record(_BITS, _checked(key), shape=checked_shape("random", shape))


# ---- distributions


def _float_dtype(name: str, dtype: Any) -> np.dtype[Any]:
    dtype = np.dtype(float32 if dtype is None else dtype)
    if dtype.kind not in "fV":
        raise ValueError(f"[{name}] dtype={dtype}: expected floats")
    return dtype


def _fits(name: str, shape: Any, *values: array) -> tuple[int, ...]:
    """Return the shape; raise if the values do not broadcast to it."""
    dims = checked_shape(name, shape)
    if broadcast(dims, *(v.shape for v in values)) != dims:
        raise ValueError(f"[{name}] {[v.shape for v in values]} for shape {dims}")
    return dims


@public
def uniform(
    low: Any = 0, high: Any = 1, shape: Sequence[int] = (), dtype: Any = float32, key: Any = None
) -> array:
    """From low, included, to high, excluded."""
    dtype = _float_dtype("uniform", dtype)
    low, high = astype(low, dtype), astype(high, dtype)
    dims = _fits("uniform", shape, low, high)
    part = astype(_bits(dims, key) / threefry.ALL_BITS, dtype)
    return (high - low) * elementwise.minimum(part, 1 - float(finfo(dtype).epsneg)) + low


@public
def normal(
    shape: Sequence[int] = (), dtype: Any = float32, loc: Any = None, scale: Any = None,
    key: Any = None,
) -> array:  # fmt: skip
    """Normally distributed around `loc` (0) with the standard deviation `scale` (1)."""
    dtype = _float_dtype("normal", dtype)
    drawn = elementwise.erfinv(uniform(-threefry.BELOW_ONE, 1.0, shape, float32, key))
    root = array(math.sqrt(2), dtype)
    value = astype(drawn, dtype) * (root if scale is None else root * astype(scale, dtype))
    return value if loc is None else value + astype(loc, dtype)


@public
def multivariate_normal(
    mean: Any, cov: Any, shape: Sequence[int] = (), dtype: Any = float32, key: Any = None
) -> array:
    """Normally distributed vectors around `mean` [..., n] with the covariance `cov` [..., n, n].

    Args:
        shape: what the dimensions before the last ones of `mean` and `cov` are broadcast to.
        dtype: float32.
    """
    mean, cov = as_array(mean), astype(cov, float32)
    size = mean.shape[-1:]
    if np.dtype(float32 if dtype is None else dtype) != float32:
        raise ValueError(f"[multivariate_normal] dtype={dtype}: expected float32")
    if not size or cov.ndim < 2 or cov.shape[-2:] != size * 2:
        raise ValueError(
            f"[multivariate_normal] mean {mean.shape} and cov {cov.shape}: expected [..., n] and "
            "[..., n, n]"
        )
    dims = broadcast(
        broadcast(cov.shape[:-2], mean.shape[:-1]), checked_shape("multivariate_normal", shape)
    )
    spread = expand_dims(normal((*dims, *size), key=key), -2) @ record(_ROOT, cov)
    return mean + squeeze(spread, -2)


def _root(cov: np.ndarray) -> np.ndarray:
    """The square root of symmetric matrices."""
    u, s, v = np.linalg.svd(cov)
    return np.asarray((u * np.sqrt(s)[..., None, :]) @ v, np.float32)


_ROOT = Op("matrix_root", same_spec, _root)


@public
def truncated_normal(
    lower: Any, upper: Any, shape: Sequence[int] | None = None, dtype: Any = float32,
    key: Any = None,
) -> array:  # fmt: skip
    """Normally distributed, but from lower to upper; lower, where that is the higher one."""
    dtype = _float_dtype("truncated_normal", dtype)
    lower, upper = astype(lower, dtype), astype(upper, dtype)
    dims = broadcast(lower.shape, upper.shape) if shape is None else shape
    root = math.sqrt(2)
    a, b = (elementwise.erf(v / root) for v in (lower, upper))
    value = root * elementwise.erfinv(uniform(a, b, dims, dtype, key))
    return elementwise.maximum(elementwise.minimum(upper, value), lower)


@public
def bernoulli(p: Any = 0.5, shape: Sequence[int] | None = None, key: Any = None) -> array:
    """True with probability p, a float."""
    p = as_array(p)
    if p.dtype.kind not in "fV":
        raise ValueError(f"[bernoulli] p is {p.dtype}: expected floats")
    dims = p.shape if shape is None else _fits("bernoulli", shape, p)
    return _bits(dims, key) < p * np.nextafter(threefry.ALL_BITS, _INFINITY)


@public
def gumbel(shape: Sequence[int] = (), dtype: Any = float32, key: Any = None) -> array:
    """-log(-log(uniform)): what makes the largest of logits a sample."""
    return -elementwise.log(-elementwise.log(uniform(shape=shape, dtype=dtype, key=key)))


@public
def laplace(
    shape: Sequence[int] = (), dtype: Any = float32, loc: float = 0.0, scale: float = 1.0,
    key: Any = None,
) -> array:  # fmt: skip
    """Of the double exponential distribution."""
    dtype = _float_dtype("laplace", dtype)
    u = uniform(-threefry.BELOW_ONE, 1.0, shape, float32, key)
    value = astype(elementwise.sign(u) * elementwise.log1p(-elementwise.abs(u)), dtype)
    value = value if scale == 1 else array(float(scale), dtype) * value
    return value if loc == 0 else array(float(loc), dtype) + value


@public
def categorical(
    logits: Any, axis: int = -1, shape: Sequence[int] | None = None,
    num_samples: int | None = None, key: Any = None,
) -> array:  # fmt: skip
    """Indices along an axis, uint32, with the probabilities softmax(logits).

    Args:
        shape: of the result, which the other dimensions broadcast to. Default: the other
            dimensions, and after them `num_samples`, if given.
    """
    logits = as_array(logits)
    place = normal_axis("categorical", axis, logits.ndim)
    if shape is not None and num_samples is not None:
        raise ValueError("[categorical] give shape or num_samples, not both")
    others = (*logits.shape[:place], *logits.shape[place + 1 :])
    if num_samples is not None:
        logits = expand_dims(logits, logits.ndim)
        others = (*others, 1)
        shape = (*others[:-1], whole_number("categorical", "num_samples", num_samples, least=0))
    dims = others if shape is None else checked_shape("categorical", shape)
    if broadcast(dims, others) != dims:
        raise ValueError(f"[categorical] shape={dims} of logits {logits.shape}, axis {axis}")
    size = logits.shape[place]
    if dims and 0 < size == logits.size:
        return _of_one_row(reshape(logits, (size,)), dims, key)
    back = place - logits.ndim
    where = len(dims) + back + 1
    noise = gumbel((*dims[:where], size, *dims[where:]), key=key)
    return argmax(logits + noise, back)


def _of_one_row(logits: array, dims: tuple[int, ...], key: Any) -> array:
    """Samples of one distribution: where uniform numbers come in its running sum."""
    x = astype(logits, common(logits.dtype, float32))
    most = max(x)
    finite = elementwise.exp(x - most)
    weights = elementwise.where(elementwise.isinf(most), elementwise.equal(x, most), finite)
    below = cumsum(weights, 0, inclusive=False)
    drawn = uniform(shape=dims, key=key) * sum(weights)
    return sorting.searchsorted(below, drawn, "right") - 1


@public
def permutation(x: Any, axis: int = 0, key: Any = None) -> array:
    """The numbers below an int, or x along an axis, in random order."""
    if isinstance(x, int):
        return sorting.argsort(_bits((x,), key))
    x = as_array(x)
    place = normal_axis("permutation", axis, x.ndim)
    return take(x, sorting.argsort(_bits((x.shape[place],), key)), place)


# ---- ints


@public
def randint(
    low: Any, high: Any, shape: Sequence[int] = (), dtype: Any = int32, key: Any = None
) -> array:
    """Ints from low, included, to high, excluded; low, where high is not above it.

    Bounds of more than 24 bits are no numbers of float32: between them all 64 bits count, where
    MLX's are multiples of a power of two.
    """
    dtype, low, high = np.dtype(int32 if dtype is None else dtype), as_array(low), as_array(high)
    if dtype.kind in "fV":
        raise ValueError(f"[randint] dtype={dtype}: expected ints")
    dims = _fits("randint", shape, low, high)
    for name, bound, beyond in (("low", low, 0), ("high", high, 1)):
        _check_bound(name, bound, beyond, dtype)
    return record(_RANDINT, _checked(key), low, high, shape=dims, dtype=dtype)


def _check_bound(name: str, bound: array, beyond: int, dtype: np.dtype[Any]) -> None:
    if bound.node.op is CONSTANT and bound.dtype.kind in "iu" and dtype.kind in "iu" and bound.size:
        value = bound.numpy()
        if not can_hold(dtype, int(value.min()) - beyond, int(value.max()) - beyond):
            raise ValueError(f"[randint] {name}={str(value)[:60]}: no number of {dtype}")


def _randint_numpy(
    key: np.ndarray, low: np.ndarray, high: np.ndarray, *, shape: tuple[int, ...], dtype: Any
) -> np.ndarray:
    bounds = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
    floats = any(b.dtype.kind in "fV" for b in bounds)
    most = np.max([np.abs(b.astype(np.float64)).max(initial=0) for b in (low, high)])
    if floats or most <= 2**24:
        return threefry.small_ints(key, *bounds, dtype)
    return threefry.wide_ints(key, *bounds).astype(dtype)


_RANDINT = Op("randint", lambda *_, shape, dtype: (shape, dtype), _randint_numpy)

__getattr__ = refuse(__name__, "random")
