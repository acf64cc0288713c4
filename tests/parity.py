"""Parity with transformers: the one helper every model's test uses.

A golden holds, per prompt and position, what transformers says in float32: the 64 largest logits,
the log-sum-exp, the loss of the next token, and a few whole rows. `logits_for(ids)` gives ours,
teacher-forced: float32 [T, V].

    exact mode    largest logit difference <= 1e-4 of the largest logit; the same argmax wherever
                  the golden's margin is more than twice the difference found
    default mode  top-1 agreement >= 98 %, mean KL <= 0.01, mean loss within 0.5 %

The KL is of the 64 kept tokens and one bucket for all others: a lower bound of the whole KL, exact
in the limit; the whole rows are compared in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Logits = Callable[[list[int]], np.ndarray]
SMOLLM2 = Path(__file__).parent / "golden" / "smollm2_parity.npz"

EXACT_LOGIT = 1e-4
TOP1 = 0.98
MEAN_KL = 0.01
LOSS = 0.005


@dataclass(frozen=True)
class Golden:
    """What transformers says about one prompt of T tokens."""

    name: str
    ids: list[int]
    top_ids: np.ndarray  # [T, 64], best first
    top_logits: np.ndarray  # float32 [T, 64]
    lse: np.ndarray  # float64 [T]
    nll: np.ndarray  # float64 [T - 1]
    rows: dict[int, np.ndarray]  # position -> float32 [V]


@dataclass(frozen=True)
class Exact:
    """How far exact mode is from the golden."""

    difference: float  # largest, as a part of the largest logit
    flips: int  # argmaxes that differ though the margin is clear

    def check(self) -> None:
        """AssertionError with the numbers, unless within the bounds."""
        assert self.difference <= EXACT_LOGIT and self.flips == 0, self


@dataclass(frozen=True)
class Default:
    """How far the default mode is from the golden."""

    top1: float
    kl: float
    loss: float  # relative difference of the mean loss

    def check(self) -> None:
        """AssertionError with the numbers, unless within the bounds."""
        assert self.top1 >= TOP1 and self.kl <= MEAN_KL and abs(self.loss) <= LOSS, self


def load(path: Path = SMOLLM2) -> list[Golden]:
    """The goldens in a file of `golden/make_parity.py`."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    names = dict.fromkeys(key.split("/")[0] for key in arrays)
    return [_golden(name, arrays) for name in names]


def exact(goldens: Iterable[Golden], logits_for: Logits) -> Exact:
    """Compare logits: every kept one, and the whole rows."""
    difference, flips = 0.0, 0
    for golden in goldens:
        ours = _logits(golden, logits_for)
        apart = np.abs(_at(ours, golden.top_ids) - golden.top_logits).max(axis=1)
        for position, row in golden.rows.items():
            apart[position] = max(apart[position], np.abs(ours[position] - row).max())
        clear = golden.top_logits[:, 0] - golden.top_logits[:, 1] > 2 * apart.max()
        flips += int((clear & (ours.argmax(axis=1) != golden.top_ids[:, 0])).sum())
        difference = max(difference, float(apart.max() / np.abs(golden.top_logits).max()))
    return Exact(difference, flips)


def default(goldens: Iterable[Golden], logits_for: Logits) -> Default:
    """Compare distributions, over all positions of all prompts."""
    same, kl, theirs, ours_nll = [], [], [], []
    for golden in goldens:
        ours = _logits(golden, logits_for).astype(np.float64)
        same.append(ours.argmax(axis=1) == golden.top_ids[:, 0])
        logprobs = ours - _lse(ours)[:, None]
        kl.append(_divergence(golden, logprobs))
        theirs.append(golden.nll)
        ours_nll.append(-_at(logprobs[:-1], np.array(golden.ids[1:])[:, None])[:, 0])
    mean = np.concatenate(theirs).mean()
    loss = float(np.concatenate(ours_nll).mean() / mean - 1)
    return Default(float(np.concatenate(same).mean()), float(np.concatenate(kl).mean()), loss)


def _golden(name: str, arrays: dict[str, np.ndarray]) -> Golden:
    own = {key.split("/")[1]: value for key, value in arrays.items() if key.startswith(f"{name}/")}
    rows = {int(key[3:]): own.pop(key) for key in list(own) if key.startswith("row")}
    ids = [int(token) for token in own.pop("ids")]
    return Golden(name=name, ids=ids, top_ids=own.pop("top_ids").astype(np.int64), rows=rows, **own)


def _logits(golden: Golden, logits_for: Logits) -> np.ndarray:
    ours = np.asarray(logits_for(golden.ids))
    assert ours.ndim == 2 and len(ours) == len(golden.ids), (golden.name, ours.shape)
    assert np.isfinite(ours).all(), f"{golden.name}: logits that are not finite"
    return ours


def _divergence(golden: Golden, logprobs: np.ndarray) -> np.ndarray:
    """KL(golden || ours) per position: 64 tokens and the rest, or the whole row where kept."""
    p = golden.top_logits - golden.lse[:, None]
    q = _at(logprobs, golden.top_ids)
    p = np.concatenate([p, _rest(p)], axis=1)
    q = np.concatenate([q, _rest(q)], axis=1)
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    for position, row in golden.rows.items():
        whole = row.astype(np.float64) - golden.lse[position]
        kl[position] = (np.exp(whole) * (whole - logprobs[position])).sum()
    return kl


def _rest(logprobs: np.ndarray) -> np.ndarray:
    """log(1 - sum of the probabilities), [T, 1]."""
    left = 1 - np.exp(logprobs).sum(axis=1, keepdims=True)
    return np.log(np.maximum(left, 1e-12))


def _lse(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1))


def _at(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, ids, axis=1)
