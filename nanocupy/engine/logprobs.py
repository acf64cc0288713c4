"""From a row's logits to the logprobs that a request asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.engine.batch import Sampled, SampleRow


def sampled(row: SampleRow, token: int, log_sum: float, logits: Any) -> Sampled:
    """The answer to a row.

    Args:
        log_sum: logsumexp of its logits.
        logits: f32 [vocabulary], or None where no logprobs are wanted.
    """
    if token < 0 or row.top < 0:
        return Sampled(token, float("nan"), [])
    return Sampled(token, float(logits[token] - log_sum), _top(logits, log_sum, row.top))


def _top(logits: np.ndarray, log_sum: float, count: int) -> list[tuple[int, float]]:
    """The most probable tokens with their logprobs, best first, lower ids first where equal."""
    if count == 0:
        return []
    least = np.partition(logits, -count)[-count]
    ids = np.flatnonzero(logits >= least)
    best = ids[np.lexsort((ids, -logits[ids]))][:count]
    return [(int(i), float(logits[i] - log_sum)) for i in best]
