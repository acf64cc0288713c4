"""Philox4x32-10: random numbers as a pure function of (key, counter).

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). No state means that a
token's random number does not depend on what else ran, or how often it was computed.
"""

from __future__ import annotations

from functools import lru_cache

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio, sqrt(3) - 1
ROUNDS = 10

Words = tuple[int, int, int, int]


@lru_cache(maxsize=1024)  # four positions in a row share one answer
def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four 32-bit words from four words of counter and two of key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def uniform(seed: int, choice: int, position: int) -> float:
    """The random number in [0, 1) that draws the token at `position` of answer `choice`.

    24 bits, so that it is the same number, below 1, in float32 and float64.
    """
    words = philox((position >> 2, 0, choice, 0), (seed & MASK, seed >> 32 & MASK))
    return (words[position & 3] >> 8) * 2.0**-24
