"""Long texts in chunks, cut where that changes no token.

A cut is before a space (or a punctuation mark) between two letters, or after the end of a line.
There a word ends by every splitting rule, so merges on one side do not depend on the other. This is
checked at each cut: the tokens around it must be the same with and without it. If a tokenizer puts
a space before a text, the next chunk begins after the space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

SIZE = 1 << 16  # characters of a chunk: some 20 ms, and a few MB
LARGEST = 1 << 20  # characters of a chunk without a place to cut
AROUND = 256  # characters checked on each side of a cut: more than any token has
TRIES = 16  # cuts that may fail in a row before no more are tried

_CUT = re.compile(
    r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=\S\n)(?=[A-Za-z0-9])"
    r"|(?<=[\u3041-\u30ff\u4e00-\u9fff])(?=[\u3001\u3002\uff0c][\u3041-\u30ff\u4e00-\u9fff])"
)

Encode = Callable[[str], list[int]]


def split_text(text: str, encode: Encode, size: int = SIZE) -> Iterator[tuple[int, str]]:
    """Yield (start, chunk) for each chunk of `text`.

    Args:
        encode: returns the tokens of a text, without special tokens around it.
        size: characters of a chunk, if there is a place to cut.

    Raises:
        ValueError: there is no place to cut in LARGEST characters.
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
    """Where a cut is possible in [start, end)."""
    return (found.start() for found in _CUT.finditer(text, start, end))


def _behind(text: str, cut: int, encode: Encode) -> int | None:
    """Where the next chunk begins after a cut; None if the cut changes tokens."""
    left, right = text[max(0, cut - AROUND) : cut], text[cut : cut + AROUND]
    whole, before = encode(left + right), encode(left)
    for skipped in (0, 1) if right[0] == " " else (0,):
        if before + encode(right[skipped:]) == whole:
            return cut + skipped
    return None
