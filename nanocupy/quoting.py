"""Quote what was given in an error: enough to find it, never megabytes of it."""

from __future__ import annotations

import reprlib
from collections.abc import Collection
from typing import Any

MOST = 200  # characters
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxfrozenset = 8
_SHORT.maxlevel = 4


def quoted(value: Any) -> str:
    """repr(value), of at most 200 characters; what is left out is `...`.

    The whole is not spelled out first: neither a list of a million numbers nor an integer of as
    many digits costs more than a short one.
    """
    if isinstance(value, int) and value.bit_length() > 4 * MOST:  # repr takes long, or refuses
        return f"an integer of {value.bit_length():,} bits"
    text = _SHORT.repr(value)
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."


def listed(texts: Collection[str], separator: str = ", ", most: int = 20) -> str:
    """The first `most` texts, each of at most 200 characters, and how many more there are."""
    shown = [text if len(text) <= MOST else f"{text[: MOST - 3]}..." for text in [*texts][:most]]
    more = len(texts) - len(shown)
    return separator.join([*shown, f"and {more:,} more"] if more else shown)
