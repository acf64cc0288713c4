"""sample: one token from each row of logits, and the logsumexp of the row as it came.

    logits [rows, V] f32 (not changed) -> token int32 [rows], lse f32 [rows]

Per row, with (temperature T, top_p, min_p, uniform) = floats[row] and m the largest logit:

    edit      l = (l / mul if l > 0 else l * mul) + add, at the ids of this row's edits
    greedy    T <= 0: the first id of the largest l
    softmax   p = exp((l - m) / T), so that the best has p = 1; 0 where the exponent is below -87;
              a T above 3.4e38 (infinity, too) is 3.4e38
    top_k     keep p >= the k-th largest p; off when k <= 0 or k >= V
    top_p     of what is left, keep p >= v for the largest v whose kept mass is at least top_p of
              the mass; off when top_p >= 1
    min_p     keep p >= min_p; off when min_p <= 0
    draw      the first id whose kept mass up to and including it exceeds uniform * kept mass

Equal probabilities are kept or dropped together. A token with p = 0 is never drawn. A row with
target >= 0 is not sampled: its token is the target, unedited.

A row with a NaN, +inf or no finite logit gets token -1 and lse NaN; one that edits leave in that
state gets token -1. Logits of -inf are welcome.

On a CPU mass is added in blocks of 64 tokens: f32 in the tree of `vsum` inside a block, f64
across blocks. top_p, and on CUDA the draw, weigh in integers, units of 2^-42, which add to the same
sum in any order; what weighs less than one is never drawn there.
"""

from __future__ import annotations

import numpy as np

HOTTEST = 3.4e38  # largest temperature
MOST = 1 << 20  # largest vocabulary: 2^20 weights of 2^42 fit an int64


def check_vocabulary(vocabulary: int) -> None:
    """Raise ValueError unless the vocabulary is 1 to 2^20 tokens."""
    if not 1 <= vocabulary <= MOST:
        raise ValueError(f"[sample] vocabulary={vocabulary}: expected 1 to {MOST} tokens")


def reference(
    logits: np.ndarray,
    floats: np.ndarray,
    top_k: np.ndarray,
    target: np.ndarray,
    edits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """(token int32 [rows], lse f32 [rows]); `edits` is (start, ids, mul, add)."""
    start, ids, mul, add = edits
    tokens, sums = [], []
    for row, raw in enumerate(logits):
        at = slice(start[row], start[row + 1])
        sums.append(_logsumexp(raw))
        if np.isnan(sums[-1]):
            tokens.append(-1)
        elif target[row] >= 0:
            tokens.append(int(target[row]))
        else:
            edited = _edited(raw, ids[at], mul[at], add[at])
            tokens.append(_token(edited, floats[row], int(top_k[row])))
    return np.array(tokens, np.int32), np.array(sums, np.float32)


def _logsumexp(row: np.ndarray) -> float:
    """NaN unless the largest logit is finite and none is NaN."""
    best = row.max()
    if not np.isfinite(best):
        return float("nan")
    return float(best + np.log(np.exp(row.astype(np.float64) - best).sum()))


def _edited(row: np.ndarray, ids: np.ndarray, mul: np.ndarray, add: np.ndarray) -> np.ndarray:
    row = row.copy()
    old = row[ids]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        row[ids] = np.where(old > 0, old / mul, old * mul) + add
    return row


def _token(row: np.ndarray, floats: np.ndarray, top_k: int) -> int:
    """row f32 [V] -> the token; -1 if its largest logit is not finite, or one is NaN."""
    temperature, top_p, min_p, uniform = floats
    best = row.max()
    if not np.isfinite(best):
        return -1
    if temperature <= 0:
        return int(row.argmax())
    with np.errstate(over="ignore"):
        p = probabilities((row - best) / min(temperature, HOTTEST), top_k, top_p, min_p)
    mass = p.cumsum()
    drawn = int(np.searchsorted(mass, float(uniform) * mass[-1], side="right"))
    return min(drawn, int(np.flatnonzero(p)[-1]))


def probabilities(x: np.ndarray, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """x f32 [V], at most 0 -> f64 [V]: exp(x) where it is kept, else 0. The largest is 1."""
    p = np.where(x < -87, np.float32(0), np.exp(x)).astype(np.float64)
    if 0 < top_k < len(p):
        p[p < np.sort(p)[-top_k]] = 0
    if top_p < 1:
        down = np.sort(p)[::-1]
        enough = np.searchsorted(down.cumsum(), float(top_p) * p.sum())
        p[p < down[min(int(enough), len(p) - 1)]] = 0
    if min_p > 0:
        p[p < min(min_p, 1)] = 0
    return p


def pack_edits(ids: np.ndarray, mul: np.ndarray, add: np.ndarray) -> np.ndarray:
    """Edits as kernels read them: int32 [edits, 3], an id and the bits of two f32."""
    words = (ids.astype(np.int32), *(x.astype(np.float32).view(np.int32) for x in (mul, add)))
    return np.stack(words, 1)
