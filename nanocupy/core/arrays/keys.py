"""Keys of `x[key]`: ints, slices, None, Ellipsis, arrays of ints, masks.

A key is taken apart once: arrays of ints are inputs of the operation, the rest is an attribute of
it. What can be known when it is recorded is checked then: an array that gets a wrong key or value
is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array
from nanocupy.core.recorder.graph import Shape
from nanocupy.core.recorder.shapes import IndexMismatch, Slice, check_indices
from nanocupy.core.recorder.specs import blank
from nanocupy.dtypes import bool_, int32

Key = tuple[Any, ...]


class _Input:
    """Stands in a key for an array of indices that is an input of the operation."""


INPUT = _Input()


def fill_key(key: Key, arrays: Sequence[np.ndarray]) -> Key:
    """Return the key with the arrays put back."""
    left = iter(arrays)
    return tuple(next(left) if part is INPUT else part for part in key)


def split_key(parts: Key, ndim: int) -> tuple[Key, list[array]]:
    """Split a key into a template and its arrays of ints. Masks are evaluated: they decide the
    shape."""
    key, arrays = [], []
    for part in parts:
        if isinstance(part, list | np.ndarray):
            part = array(part, int32) if isinstance(part, list) and not part else array(part)
        if not isinstance(part, array):
            key.append(part)
        elif part.dtype == bool_:
            key.append(part.numpy())
        elif part.dtype.kind not in "iu":
            raise IndexMismatch(f"[getitem] indices are ints or bools, not {part.dtype}")
        else:
            key.append(INPUT)
            arrays.append(part)
    return _spelt_out(key, ndim), arrays


def _spelt_out(key: list[Any], ndim: int) -> Key:
    """The key with slices for its Ellipsis: one that stands for none does not keep arrays apart."""
    places = [i for i, part in enumerate(key) if part is ...]
    if not places:
        return tuple(key)
    used = sum(getattr(part, "ndim", 1) for part in key if part is not None and part is not ...)
    if len(places) > 1 or used > ndim:
        raise IndexMismatch(f"[getitem] {key} of an array with {ndim} dimensions")
    return (*key[: places[0]], *[Slice(None)] * (ndim - used), *key[places[0] + 1 :])


# ---- places to write to


def is_int(part: Any) -> bool:
    return isinstance(part, int | np.integer) and not isinstance(part, bool)


def place(out: np.ndarray, key: Key, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, Key]:
    """A view of `out`, and the key for what of it is written.

    Ints are looked up first, as in MLX: so they do not count among the arrays of indices, whose
    dimensions come first where a slice stands between them.
    """
    at_ints: list[Any] = []
    for part in key:
        if is_int(part):
            at_ints.append(part)
        elif part is not None:
            at_ints += [Slice(None)] * getattr(part, "ndim", 1)
    view = out[(*at_ints, ...)]  # the Ellipsis makes it a view, even of one element
    return view, fill_key(tuple(p for p in key if not is_int(p)), arrays)


def check_update(name: str, x: array, key: Key, arrays: Sequence[array], value: Shape) -> None:
    """
    Raises:
        Misfit: the key does not fit the array, or an index in it is outside.
        ValueError: the value does not fit where the key points.
    """
    for part in key:
        if not (is_int(part) or part is None or part is INPUT or isinstance(part, _PARTS)):
            raise IndexMismatch(f"[{name}] {str(part)[:60]}: expected ints, slices, None or arrays")
    free = [blank(a.node.specs[0]) for a in arrays]
    try:
        view, where = place(blank((x.shape, np.dtype(bool_))), key, free)
        inside = view[where].shape
    except IndexError as error:
        raise IndexMismatch(f"[{name}] {error}") from None
    if value != inside and not _spreads(value, inside):
        raise ValueError(f"[{name}] a value of shape {value} for a place of shape {inside}")
    if arrays:
        _check_range(name, x.shape, key, arrays)


def _spreads(value: Shape, inside: Shape) -> bool:
    """Whether a value broadcasts to a place."""
    sides = zip(value[::-1], inside[::-1], strict=False)
    return len(value) <= len(inside) and all(v in (1, n) for v, n in sides)


_PARTS = (bool, Slice, np.ndarray, np.bool_)


def _check_range(name: str, shape: Shape, key: Key, arrays: Sequence[array]) -> None:
    left, axis = iter(arrays), 0
    for part in key:
        if part is INPUT:
            check_indices(name, next(left), int(shape[axis]))
        if part is not None and not isinstance(part, bool | np.bool_):
            axis += getattr(part, "ndim", 1)
