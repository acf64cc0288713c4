"""`Upsample`, as `mlx.nn` has it: resize x [N, ..., C] along the axes in between."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.module import Module

_RADIUS = {"linear": 1, "cubic": 2}
_MODES = ("nearest", *_RADIUS)


class Upsample(Module):
    """
    Args:
        scale_factor: the factor of the lengths: a number, or one for each axis.
        mode: "nearest", "linear" or "cubic".
        align_corners: whether the first and last elements keep their positions.
        antialias: when shrinking, average all elements that fall together. "cubic" then has
            a = -0.5 (Pillow's) instead of -0.75 (OpenCV's).
    """

    def __init__(
        self,
        scale_factor: Any,
        mode: str = "nearest",
        align_corners: bool = False,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        several = isinstance(scale_factor, list | tuple)
        scales = tuple(float(s) for s in (scale_factor if several else [scale_factor]))
        if mode not in _MODES:
            raise ValueError(f"[Upsample] mode={str(mode)[:40]!r}: expected one of {_MODES}")
        if antialias and (align_corners or mode == "nearest"):
            raise ValueError("[Upsample] antialias: not with align_corners, nor with nearest")
        if not scales or not all(0 < s < math.inf for s in scales):
            raise ValueError(f"[Upsample] scale_factor={scale_factor}: expected numbers above 0")
        self.scale_factor: Any = scales if several else scales[0]
        self.mode, self.align_corners, self.antialias = mode, align_corners, antialias

    def __call__(self, x: array) -> array:
        axes, given = x.ndim - 2, self.scale_factor
        scales = list(given) if isinstance(given, list | tuple) else [given] * axes
        if axes < 1 or len(scales) != axes:
            raise ValueError(f"[Upsample] x {list(x.shape)} by {given}: expected [N, ..., C]")
        for axis, scale in enumerate(scales, 1):
            size = int(x.shape[axis])
            if self.mode == "nearest":
                x = core.take(x, array(_nearest(size, scale)), axis)
            else:
                how = self.mode, self.align_corners, self.antialias
                x = _apply(array(_weights(size, scale, *how)), x, axis)
        return x

    def _extra_repr(self) -> str:
        return (
            f"scale_factor={self.scale_factor}, mode={self.mode!r}, "
            f"align_corners={self.align_corners}{', antialias=True' if self.antialias else ''}"
        )


def _nearest(size: int, scale: float) -> np.ndarray:
    """The index of the old element of each new one."""
    count = int(scale * size)
    places, step = np.arange(count, dtype=np.float32), np.float32(size / max(count, 1))
    if count > size:  # in float32, as MLX: halves between two elements go by its rounding
        return np.rint((places + np.float32(0.5)) * step - np.float32(0.5)).astype(np.uint32)
    return (places * step).astype(np.uint32)


def _places(size: int, scale: float, align_corners: bool) -> np.ndarray:
    """The positions of the new elements among the old ones."""
    count = int(scale * size)
    if align_corners:
        return np.asarray(np.arange(count) * ((size - 1) / max(count - 1, 1)))
    return np.asarray(np.arange(count) / scale - ((count - 1) / scale - size + 1) / 2)


def _weights(
    size: int, scale: float, mode: str, align_corners: bool, antialias: bool
) -> np.ndarray:
    """[new, old]: the weights of the old elements in each new one.

    Elements outside the signal equal its edge; with `antialias` they have no weight.
    """
    at = _places(size, scale, align_corners)
    if mode == "linear" and not antialias:
        at = np.clip(at, 0, size - 1)
    wide = max(1 / scale, 1) if antialias else 1.0
    reach = math.ceil(_RADIUS[mode] * wide) + 1
    out, rows = np.zeros((len(at), size)), np.arange(len(at))
    for step in range(-reach, reach + 1):
        place = np.floor(at) + step
        weight = _kernel(mode, np.abs(at - place) / wide, -0.5 if antialias else -0.75)
        if antialias:
            weight = np.where((place >= 0) & (place < size), weight, 0)
        np.add.at(out, (rows, np.clip(place, 0, size - 1).astype(int)), weight)
    return (out / out.sum(1, keepdims=True) if antialias else out).astype(np.float32)


def _kernel(mode: str, x: np.ndarray, a: float) -> np.ndarray:
    """The weight of an element at distance x: a triangle, or Keys' cubic."""
    if mode == "linear":
        return np.maximum(1 - x, 0)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0))


def _apply(weights: array, x: array, axis: int) -> array:
    """weights @ x along an axis, in float32 at least."""
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    flat = core.reshape(x, (math.prod(before), x.shape[axis], math.prod(after)))
    return core.reshape(core.matmul(weights, flat), (*before, weights.shape[0], *after))
