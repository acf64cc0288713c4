"""Functions as MLX has them: they accept a `stream`, and their results are new arrays.

An operation that changes nothing may return its argument: `x.astype(x.dtype)`, a split into one.
Callers get another array with the same node, so that `y = mx.flatten(x); y += 1` leaves x alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, TypeVar

from nanocupy.core.recorder.arrays import array

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Place:
    """What a `stream` argument may be: the streams and devices of `core.runtime.devices`."""

    is_cpu: bool


def check_place(name: str, place: Any) -> None:
    """
    Raises:
        TypeError: it is neither a stream nor a device.
        ValueError: it is not the CPU.
    """
    if not isinstance(place, Place):
        raise TypeError(f"[{name}] {str(place)[:40]!r}: expected a stream or a device")
    if not place.is_cpu:
        raise ValueError(
            f"[{name}] {place}: arrays are evaluated on the CPU; compile for a GPU instead: "
            "mx.compile(function, device=...)"
        )


def public(function: _Function) -> _Function:
    """Return the function with one more argument, `stream`, by name or as the last one.

    `stream` is None, or a stream or device that is the CPU. Results are never arguments.
    """

    @wraps(function)
    def call(*args: Any, stream: Any = None, **kwargs: Any) -> Any:
        if args and isinstance(args[-1], Place):
            args, stream = args[:-1], args[-1]
        if stream is not None:
            check_place(function.__name__, stream)
        result = function(*args, **kwargs)
        if type(result) is array:
            return (
                new_handle(result)
                if any(result is x for x in (*args, *kwargs.values()))
                else result
            )
        return type(result)(map(new_handle, result)) if type(result) in (list, tuple) else result

    return call  # type: ignore[return-value]


def new_handle(x: Any) -> Any:
    """Return a new array with the same node: updating one in place leaves the other alone."""
    return array(x.node) if type(x) is array else x


def operation(value: Any) -> Any:
    """Apply `public` to a function; return other values as they are."""
    return public(value) if isinstance(value, FunctionType) else value
