"""Logprobs that requests ask for, from a row's logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nanocupy.engine.batch import Sampled, SampleRow
from nanocupy.engine.outputs import LOWEST_LOGPROB, Logprob, TokenLogprobs

if TYPE_CHECKING:
    from nanocupy.text import Tokenizer


def sampled(row: SampleRow, token: int, log_sum: float, logits: Any) -> Sampled:
    """Return the answer to a row.

    Args:
        log_sum: logsumexp of its logits.
        logits: f32 [vocabulary], or None where no logprobs are wanted.
    """
    return Sampled(token, float(logits[token] - log_sum), _top(logits, log_sum, row.top))


def shown(answer: Sampled, tokenizer: Tokenizer | None) -> TokenLogprobs:
    """Return the answer to a row as callers see it: each token with its text, where it has one."""
    text = tokenizer.token_text if tokenizer is not None else lambda token: ""
    pairs = [(answer.token, answer.logprob), *answer.top]
    return {token: Logprob(max(p, LOWEST_LOGPROB), text(token)) for token, p in pairs}


def _top(logits: np.ndarray, log_sum: float, count: int) -> list[tuple[int, float]]:
    """Return the most probable tokens with their logprobs, best first; of equal ones, lower ids."""
    if count == 0:
        return []
    least = np.partition(logits, -count)[-count]
    ids = np.flatnonzero(logits >= least)
    best = ids[np.lexsort((ids, -logits[ids]))][:count]
    return [(int(i), float(logits[i] - log_sum)) for i in best]
