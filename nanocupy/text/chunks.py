"""Pieces: a long text cut where that changes no token.

A cut is before a space (or a mark of punctuation) between two letters, or behind the end of a line:
there a word ends by every splitting rule, so that what is merged on one side does not depend on the
other. Whether a tokenizer agrees is not taken for granted: the tokens around a cut must be the same
with it. Where a tokenizer puts a space before a text, the next piece begins behind the space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

SIZE = 1 << 16  # characters of a piece: some 20 ms, and a few MB
LARGEST = 1 << 20  # characters of a piece where there is no place to cut
AROUND = 256  # characters on each side of a cut that are looked at: more than any token has
TRIES = 16  # cuts that are looked at before a tokenizer is taken to allow none

_CUT = re.compile(
    r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=\S\n)(?=[A-Za-z0-9])"
    r"|(?<=[\u3041-\u30ff\u4e00-\u9fff])(?=[\u3001\u3002\uff0c][\u3041-\u30ff\u4e00-\u9fff])"
)

Encode = Callable[[str], list[int]]


def split_text(text: str, encode: Encode, size: int = SIZE) -> Iterator[tuple[int, str]]:
    """Where a piece of `text` begins, and itself, one after the other.

    Args:
        encode: the tokens of a text, nothing put around.
        size: how many characters a piece has where there is a place to cut.

    Raises:
        ValueError: there is none for very long.
    """
    start, end, failed = 0, size, 0
    while end < len(text):
        if end - start >= LARGEST:
            raise ValueError(
                f"the text has more than {LARGEST} characters without a place where it could be "
                f"cut, such as a space between two words; give its token ids instead"
            )
        end += size
        for cut in _places(text, max(start + 1, end - size - size // 2), end - size):
            if failed == TRIES:
                break
            behind = _behind(text, cut, encode)
            if behind is not None:
                yield start, text[start:cut]
                start, end, failed = behind, behind + size, 0
                break
            failed += 1
    yield start, text[start:]


def _places(text: str, start: int, end: int) -> Iterator[int]:
    """Where there may be a cut in [start, end)."""
    return (found.start() for found in _CUT.finditer(text, start, end))


def _behind(text: str, cut: int, encode: Encode) -> int | None:
    """Where the next piece begins if the text is cut at `cut`; None where that changes tokens."""
    left, right = text[max(0, cut - AROUND) : cut], text[cut : cut + AROUND]
    whole, before = encode(left + right), encode(left)
    for skipped in (0, 1) if right[0] == " " else (0,):
        if before + encode(right[skipped:]) == whole:
            return cut + skipped
    return None
