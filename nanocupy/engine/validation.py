"""Dataclass fields that check what they are given: type, range, and a name that exists."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field, fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from nanocupy.quoting import quoted

Check = Callable[[Any], Any]  # returns the value as stored; raises ValueError with what is allowed


class Checked:
    """Base of a frozen, keyword-only dataclass made of the fields below.

    Raises TypeError for a name it does not have (and says which it has), ValueError for a value
    of the wrong type or out of range.
    """

    def __new__(cls, *args: object, **given: object) -> Any:
        if args:
            raise TypeError(f"[{cls.__name__}] takes keyword arguments only, got {quoted(args[0])}")
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        for name in given:
            if name not in names:
                close = get_close_matches(name, names, 1)
                hint = f" Did you mean '{close[0]}'?" if close else ""
                raise TypeError(
                    f"[{cls.__name__}] has no {quoted(name)}.{hint} It has: {', '.join(names)}"
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            try:
                value = f.metadata["check"](value)
            except ValueError as error:
                raise ValueError(f"[{type(self).__name__}] {f.name} {error}") from None
            object.__setattr__(self, f.name, value)


def checked(default: Any, check: Check, help: str, *, optional: bool = False) -> Any:
    """A field with its own check; `optional` (or a default of None) lets None through."""
    optional = optional or default is None
    known = (lambda v: None if v is None else check(v)) if optional else check
    return field(default=default, metadata={"check": known, "help": help})


def to_int(value: Any, low: int, high: int) -> int:
    """`value` as an int in [low, high]; NumPy integers are integers, bool is not."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"must be an integer, got {quoted(value)} ({type(value).__name__})")
    if not low <= int(value) <= high:
        raise ValueError(f"must be in [{low}, {high}], got {quoted(int(value))}")
    return int(value)


def to_float(value: Any, low: float, high: float) -> float:
    """`value` as a finite float in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"must be a number, got {quoted(value)} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"must be in [{low:g}, {high:g}], got {quoted(number)}")
    return number


def integer(default: int | None, low: int, high: int, help: str, *, optional: bool = False) -> Any:
    """An integer field in [low, high]."""
    return checked(default, lambda v: to_int(v, low, high), help, optional=optional)


def real(default: float, low: float, high: float, help: str) -> Any:
    """A finite float field in [low, high]."""
    return checked(default, lambda v: to_float(v, low, high), help)


def flag(default: bool | None, help: str) -> Any:
    """A True/False field; no other truthy value."""

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be True or False, got {quoted(value)}")
        return value

    return checked(default, check, help)


def choice(default: Any, allowed: tuple[Any, ...], help: str) -> Any:
    """One of a few values."""

    def check(value: Any) -> Any:
        if isinstance(value, bool | float) or value not in allowed:  # which may be equal to 4
            raise ValueError(f"must be one of {', '.join(map(repr, allowed))}, got {quoted(value)}")
        return allowed[allowed.index(value)]

    return checked(default, check, help)
