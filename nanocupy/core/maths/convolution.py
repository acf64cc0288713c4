"""Convolutions with channels last, as `mlx.core` has them: x [N, ..., C]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core.arrays.layout import flip
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import promote
from nanocupy.core.recorder.graph import Op, Spec
from nanocupy.core.recorder.shapes import reshape
from nanocupy.core.recorder.specs import upcasting

Sizes = int | Sequence[int]


def _lengths(x: Sequence[int], k: Sequence[int], how: dict[str, Any]) -> list[int]:
    """Positions of the kernel along each dimension."""
    low, high = how["padding"]
    grown = [
        (n - 1) * d + 1 + a + b for n, d, a, b in zip(x, how["spread"], low, high, strict=True)
    ]
    reach = [(n - 1) * d + 1 for n, d in zip(k, how["dilation"], strict=True)]
    return [(n - r) // s + 1 for n, r, s in zip(grown, reach, how["stride"], strict=True)]


def _spec(x: Spec, w: Spec, **how: Any) -> Spec:
    (shape, dtype), (kernel, _) = x, w
    if dtype.kind not in "fV":
        raise ValueError(f"[conv] x is {dtype}: expected floats")
    if len(shape) != len(kernel) or shape[-1] != kernel[-1] * how["groups"]:
        raise ValueError(f"[conv] x {shape} and weight {kernel} in {how['groups']} groups")
    if min(*how["stride"], *how["dilation"], *how["spread"]) < 1:
        raise ValueError(f"[conv] strides and dilations {how}: expected 1 or more")
    if kernel[0] % how["groups"]:
        raise ValueError(f"[conv] {kernel[0]} outputs in {how['groups']} groups")
    lengths = _lengths(shape[1:-1], kernel[1:-1], how)
    if min(lengths) < 1:
        raise ValueError(f"[conv] a kernel of {kernel[1:-1]} does not fit in {shape[1:-1]}")
    return (shape[0], *lengths, kernel[0]), dtype


def _placed(x: np.ndarray, spread: Sequence[int], padding: Any) -> np.ndarray:
    """Return x with zeros between and around its elements; negative padding cuts it."""
    low, high = padding
    lengths = [(n - 1) * d + 1 for n, d in zip(x.shape[1:-1], spread, strict=True)]
    total = [n + a + b for n, a, b in zip(lengths, low, high, strict=True)]
    left, right = ([max(p, 0) for p in side] for side in (low, high))
    grown = [n + a + b for n, a, b in zip(lengths, left, right, strict=True)]
    out = np.zeros((x.shape[0], *grown, x.shape[-1]), x.dtype)
    inside = [slice(a, a + n, d) for a, n, d in zip(left, lengths, spread, strict=True)]
    out[(slice(None), *inside)] = x
    kept = [slice(a - p, a - p + n) for a, p, n in zip(left, low, total, strict=True)]
    return out[(slice(None), *kept)]


def _windows(x: np.ndarray, kernel: Sequence[int], how: dict[str, Any]) -> np.ndarray:
    """[N, positions..., C, kernel...], a view."""
    reach = [(n - 1) * d + 1 for n, d in zip(kernel, how["dilation"], strict=True)]
    axes = tuple(range(1, 1 + len(reach)))
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    steps = [slice(None, None, s) for s in how["stride"]]
    inside = [slice(None, None, d) for d in how["dilation"]]
    return seen[(slice(None), *steps, slice(None), *inside)]


def _convolve(x: np.ndarray, w: np.ndarray, **how: Any) -> np.ndarray:
    groups, rank = how["groups"], w.ndim - 2
    seen = _windows(_placed(x, how["spread"], how["padding"]), w.shape[1:-1], how)
    parts = []
    for part, kernel in zip(np.split(seen, groups, 1 + rank), np.split(w, groups), strict=True):
        last = list(range(1 + rank, 2 + 2 * rank))  # channels, then places of the kernel
        parts.append(np.tensordot(part, kernel, (last, [1 + rank, *range(1, 1 + rank)])))
    return np.concatenate(parts, -1)


_CONV = Op("conv_general", _spec, upcasting(_convolve))


def _sizes(value: Sizes, rank: int) -> list[int]:
    sizes = [value] * rank if isinstance(value, int) else list(value)
    if len(sizes) != rank:
        raise ValueError(
            f"[conv] {value} for {rank} dimensions: expected a number, or one for each"
        )
    return sizes


def conv_general(
    x: Any, weight: Any, /, stride: Sizes = 1, padding: Any = 0, kernel_dilation: Sizes = 1,
    input_dilation: Sizes = 1, groups: int = 1, flip: bool = False,
) -> array:  # fmt: skip
    """A convolution (a correlation, unless `flip`) over all dimensions between the first and last.

    Args:
        padding: zeros on both sides, or (before, after).
        input_dilation: distance between elements of x, with zeros in between.
    """
    x, weight = promote((as_array(x), as_array(weight)))
    rank = x.ndim - 2
    pair = isinstance(padding, tuple) and len(padding) == 2 and isinstance(padding[0], list | tuple)
    low, high = padding if pair else (padding, padding)
    if rank < 1 or groups < 1:
        raise ValueError(f"[conv] x of {x.ndim} dimensions in {groups} groups")
    how = {
        "stride": _sizes(stride, rank),
        "padding": (_sizes(low, rank), _sizes(high, rank)),
        "dilation": _sizes(kernel_dilation, rank),
        "spread": _sizes(input_dilation, rank),
        "groups": groups,
    }
    if flip:
        weight = _flip(weight, range(1, 1 + rank))
    return record(_CONV, x, weight, **how)


_flip = flip


def _direct(rank: int) -> Callable[..., array]:
    def call(
        x: Any, weight: Any, /, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1,
        groups: int = 1,
    ) -> array:  # fmt: skip
        _check_rank(f"conv{rank}d", x, rank)
        return conv_general(x, weight, stride, padding, dilation, groups=groups)

    call.__name__, call.__doc__ = f"conv{rank}d", f"`conv_general` over {rank} dimensions."
    return call


def _transposed(rank: int) -> Callable[..., array]:
    def call(
        x: Any, weight: Any, /, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1,
        output_padding: Sizes = 0, groups: int = 1,
    ) -> array:  # fmt: skip
        _check_rank(f"conv_transpose{rank}d", x, rank)
        kernel = as_array(weight).shape[1:-1]
        padded, spread = _sizes(padding, rank), _sizes(dilation, rank)
        low = [d * (k - 1) - p for k, d, p in zip(kernel, spread, padded, strict=True)]
        high = [n + p for n, p in zip(low, _sizes(output_padding, rank), strict=True)]
        return conv_general(x, weight, 1, (low, high), dilation, stride, groups, flip=True)

    call.__name__ = f"conv_transpose{rank}d"
    call.__doc__ = f"The transpose of `conv{rank}d`: of its result's shape to its input's."
    return call


def _check_rank(name: str, x: Any, rank: int) -> None:
    if as_array(x).ndim != rank + 2:
        raise ValueError(f"[{name}] x of shape {as_array(x).shape}: {rank + 2} dimensions")


conv1d, conv2d, conv3d = map(_direct, (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_transposed, (1, 2, 3))


def convolve(x: Any, v: Any, /, mode: str = "full") -> array:
    """`numpy.convolve`, in mode "full", "same" or "valid"."""
    x, v = as_array(x), as_array(v)
    if x.ndim != 1 or v.ndim != 1 or not x.size or not v.size:
        raise ValueError(f"[convolve] x {x.shape} and v {v.shape}: expected vectors with elements")
    x, v = (x, v) if x.size >= v.size else (v, x)
    extra = {"full": 2 * (v.size - 1), "same": v.size - 1, "valid": 0}
    if mode not in extra:
        raise ValueError(f"[convolve] mode={mode!r}: expected one of {tuple(extra)}")
    low = extra[mode] - extra[mode] // 2 if mode == "same" else extra[mode] // 2
    padding = ([low], [extra[mode] - low])
    out = conv_general(reshape(x, (1, -1, 1)), reshape(v, (1, -1, 1)), padding=padding, flip=True)
    return reshape(out, (-1,))
