"""Conversions of arrays for Python and other libraries: text, bytes, buffer, pickle."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, shared


def formatted(x: array, spec: str) -> str:
    """`f"{x:.2f}"`: of no dimensions as its number, of more only without a spec.

    Raises:
        TypeError: a spec for an array of dimensions.
    """
    if not x.ndim:
        return format(x.item(), spec)
    if spec:
        raise TypeError(f"[format] {spec!r} of an array of shape {x.shape}: format its elements")
    return str(x)


def as_bytes(x: array) -> bytes:
    """The elements in the order of C, as they lie in memory."""
    return x._value().tobytes()


def buffer(x: array, flags: int) -> memoryview:
    """`memoryview(x)`, which Python 3.12 and later ask for: the memory x lies in. Before that, a
    class written in Python has no buffer: use `memoryview(numpy.asarray(x))`.

    Raises:
        BufferError: of bfloat16, for which buffers have no format.
    """
    value = x._value()
    if value.dtype.kind == "V":
        raise BufferError(f"[memoryview] of {value.dtype}: no buffer has such elements: view it")
    return value.data


def namespace(x: array, api_version: str | None = None) -> Any:
    """The module whose functions take x."""
    if api_version is not None:
        raise ValueError(f"[array_namespace] api_version={str(api_version)[:40]!r}: expected None")
    return sys.modules["nanocupy.core"]


def reduced(x: array) -> Any:
    """Return what a pickle of x holds: its value as a NumPy array."""
    return shared, (np.array(x._value()),)
