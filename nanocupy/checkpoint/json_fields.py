"""Typed look-ups in a JSON object, with errors that name the field and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanocupy.quoting import quoted


@dataclass(frozen=True)
class Fields:
    """Typed look-ups in a JSON object. A field that is null counts as absent."""

    raw: Mapping[str, Any]

    def has(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def count(self, name: str, default: int | None = None, most: int = (1 << 31) - 1) -> int:
        """A positive integer of at most `most`."""
        value = self.get(name, default)
        if type(value) is not int or not 0 < value <= most:
            below = f" of at most {most:,}" if type(value) is int and value > most else ""
            raise ValueError(f"{name} must be a positive integer{below}, got {quoted(value)}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self.get(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a finite number above 0, got {quoted(value)}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self.get(name, default)
        if type(value) is not bool:
            raise ValueError(f"{name} must be true or false, got {quoted(value)}")
        return value

    def choice(self, names: tuple[str, ...], allowed: tuple[str, ...], default: str) -> str:
        """The first of the fields `names` that is there, which must be one of `allowed`."""
        value = next((self.raw[n] for n in names if self.has(n)), default)
        if value not in allowed:
            raise ValueError(f"{names[0]} {quoted(value)} is not supported; supported: {allowed}")
        return str(value)

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        """A list of finite numbers above 0."""
        value = self.get(name, None)
        good = isinstance(value, list) and len(value) == length
        if not good or any(type(x) not in (int, float) or not 0 < x < math.inf for x in value):
            raise ValueError(f"{name} must be {length} finite numbers above 0, got {quoted(value)}")
        return tuple(map(float, value))

    def get(self, name: str, default: Any) -> Any:
        """A value of any type. ValueError: it is absent, and there is no default."""
        value = self.raw.get(name)
        if value is None and default is None:
            raise ValueError(f"{name} is missing")
        return default if value is None else value
