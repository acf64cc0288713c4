"""Functions as MLX has them: they accept a `stream`, and their results are arrays of their own.

What changes nothing may give back the very array it was given: `x.astype(x.dtype)`, a split into
one. For who calls it that is another array: `y = mx.flatten(x); y += 1` leaves x as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, TypeVar

from nanocupy.core.recorder.arrays import array
from nanocupy.core.runtime.devices import PLACES, checked

_Function = TypeVar("_Function", bound=Callable[..., Any])


def public(function: _Function) -> _Function:
    """The function with one more argument, `stream`, by name or the last one: None, a stream or a
    device that is the CPU; and with results that are none of its arguments."""

    @wraps(function)
    def call(*args: Any, stream: Any = None, **kwargs: Any) -> Any:
        if args and isinstance(args[-1], PLACES):
            args, stream = args[:-1], args[-1]
        if stream is not None:
            checked(function.__name__, stream)
        result = function(*args, **kwargs)
        if type(result) is array:
            return apart(result) if any(result is x for x in (*args, *kwargs.values())) else result
        return type(result)(map(apart, result)) if type(result) in (list, tuple) else result

    return call  # type: ignore[return-value]


def apart(x: Any) -> Any:
    """The same array under another name: what is done to one in place is not done to the other."""
    return array(x.node) if type(x) is array else x


def operation(value: Any) -> Any:
    """`public`, if it is a function."""
    return public(value) if isinstance(value, FunctionType) else value
