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

from nanocupy.core import ops, sorting
from nanocupy.core.array import array, as_array, eval, float32, int32, record, uint32
from nanocupy.core.dtypes import astype
from nanocupy.core.graph import Op
from nanocupy.core.indexing import take
from nanocupy.core.reductions import argmax
from nanocupy.core.shapes import expand_dims
from nanocupy.core.specs import broadcast, elements, normal_axis, resized
from nanocupy.core.tracing import recording
from nanocupy.core.types import finfo
from nanocupy.core.unsupported import refuse

__all__ = [
    "bernoulli", "categorical", "gumbel", "key", "laplace", "normal", "permutation", "randint",
    "seed", "split", "state", "truncated_normal", "uniform",
]  # fmt: skip

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_BELOW_ONE = 1 - 2**-24  # the largest float32 below one


def _threefry(key: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """The hash of pairs of counters, uint32, by 20 rounds."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = first + keys[0], second + keys[1]
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x = x + y
            y = x ^ (y << np.uint32(turn) | y >> np.uint32(32 - turn))
        x = x + keys[(block + 1) % 3]
        y = y + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x, y


def _words(key: np.ndarray, count: int) -> np.ndarray:
    """`count` words from one key: word i and word i + half come of one hash."""
    half, odd = divmod(count, 2)
    counters = np.arange(half, dtype=np.uint32)
    pairs = _threefry(key, counters, counters + np.uint32(half + odd))
    middle = _threefry(key, np.array([half], np.uint32), np.zeros(1, np.uint32))[0][:odd]
    return np.concatenate([pairs[0], middle, pairs[1]])


def _bits_numpy(key: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return _words(key, elements(shape)).reshape(shape)


_BITS = Op("random_bits", lambda key, *, shape: (shape, uint32), _bits_numpy)


# ---- keys


def key(seed: int) -> array:
    """The key of a number below 2**64."""
    return array(np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32))


state = [key(time.time_ns() // 1000)]
"""The key that is split where none is given: `inputs` and `outputs` of a compiled function that
draws numbers."""


def split(key: Any, num: int = 2) -> array:
    """So many keys of one: uint32 [num, 2]."""
    return record(_BITS, _checked(key), shape=(num, 2))


def _next() -> array:
    """A key from the global one, which is split: recorded, inside a compiled function."""
    pair = split(state[0])
    if not recording():
        eval(pair)
    state[0] = pair[0]
    return pair[1]


def seed(seed: int) -> None:
    """Start the global key from a number."""
    state[0] = key(seed)


def _checked(key: Any) -> array:
    if key is None:
        return _next()
    key = as_array(key)
    if key.shape != (2,) or key.dtype != uint32:
        raise ValueError(f"[random] a key is uint32 [2], not {key.dtype} {list(key.shape)}")
    return key


def _bits(shape: Sequence[int], key: Any) -> array:
    return record(_BITS, _checked(key), shape=tuple(shape))


# ---- distributions


def uniform(
    low: Any = 0, high: Any = 1, shape: Sequence[int] = (), dtype: Any = float32, key: Any = None
) -> array:
    """From low, included, to high, excluded."""
    low, high = as_array(low), as_array(high)
    dtype = float32 if dtype is None else dtype
    part = ops.divide(_bits(shape, key), np.float32(2**32 - 1))
    part = ops.minimum(astype(part, dtype), 1 - float(finfo(dtype).epsneg))
    low, high = astype(low, dtype), astype(high, dtype)
    if broadcast(low.shape, high.shape, tuple(shape)) != tuple(shape):
        raise ValueError(f"[uniform] bounds {low.shape} and {high.shape} for shape {tuple(shape)}")
    return ops.add(ops.multiply(ops.subtract(high, low), part), low)


def normal(
    shape: Sequence[int] = (), dtype: Any = float32, loc: Any = None, scale: Any = None,
    key: Any = None,
) -> array:  # fmt: skip
    """Normally distributed around `loc` (0) with the standard deviation `scale` (1)."""
    dtype = float32 if dtype is None else dtype
    value = astype(ops.erfinv(uniform(-_BELOW_ONE, 1.0, shape, float32, key)), dtype)
    root = array(math.sqrt(2), dtype)
    value = ops.multiply(value, root if scale is None else ops.multiply(root, astype(scale, dtype)))
    return value if loc is None else ops.add(value, astype(loc, dtype))


def truncated_normal(
    lower: Any, upper: Any, shape: Sequence[int] | None = None, dtype: Any = float32,
    key: Any = None,
) -> array:  # fmt: skip
    """Normally distributed, but from lower to upper."""
    lower, upper = as_array(lower), as_array(upper)
    dims = broadcast(lower.shape, upper.shape) if shape is None else tuple(shape)
    root = math.sqrt(2)
    a, b = (ops.erf(ops.divide(astype(v, dtype), root)) for v in (lower, upper))
    value = ops.multiply(root, ops.erfinv(uniform(a, b, dims, dtype, key)))
    return ops.clip(value, astype(lower, dtype), astype(upper, dtype))


def randint(
    low: Any, high: Any, shape: Sequence[int] = (), dtype: Any = int32, key: Any = None
) -> array:
    """Ints from low, included, to high, excluded."""
    low, high = as_array(low), as_array(high)
    values = ops.floor(uniform(low, high, shape, float32, key))
    return astype(ops.maximum(values, low), int32 if dtype is None else dtype)


def bernoulli(p: Any = 0.5, shape: Sequence[int] | None = None, key: Any = None) -> array:
    """True with probability p."""
    p = as_array(p)
    return ops.less(uniform(shape=p.shape if shape is None else shape, key=key), p)


def gumbel(shape: Sequence[int] = (), dtype: Any = float32, key: Any = None) -> array:
    """-log(-log(uniform)): what makes the largest of logits a sample."""
    dtype = float32 if dtype is None else dtype
    return ops.negative(ops.log(ops.negative(ops.log(uniform(shape=shape, dtype=dtype, key=key)))))


def laplace(
    shape: Sequence[int] = (), dtype: Any = float32, loc: float = 0.0, scale: float = 1.0,
    key: Any = None,
) -> array:  # fmt: skip
    """Of the double exponential distribution."""
    u = uniform(-_BELOW_ONE, 1.0, shape, float32, key)
    tail = ops.log1p(ops.negative(ops.abs(u)))
    value = ops.multiply(ops.multiply(ops.sign(u), tail), scale)
    return astype(ops.add(value, loc), float32 if dtype is None else dtype)


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
    size = logits.shape[place]
    if num_samples is not None:
        logits = expand_dims(logits, logits.ndim)
        noise = gumbel(resized(logits.shape, logits.ndim - 1, num_samples), key=key)
        return argmax(ops.add(logits, noise), place)
    if shape is None:
        return argmax(ops.add(logits, gumbel(logits.shape, key=key)), place)
    back = place - logits.ndim
    dims = list(shape)
    dims.insert(len(dims) + back + 1, size)
    return argmax(ops.add(logits, gumbel(dims, key=key)), back)


def permutation(x: Any, axis: int = 0, key: Any = None) -> array:
    """The numbers below an int, or x along an axis, in random order."""
    if isinstance(x, int):
        return sorting.argsort(_bits((x,), key))
    x = as_array(x)
    place = normal_axis("permutation", axis, x.ndim)
    return take(x, sorting.argsort(_bits((x.shape[place],), key)), place)


__getattr__ = refuse(__name__, "random")
