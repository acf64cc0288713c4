"""The parity helper finds what it should, and lets pass what it should."""

from __future__ import annotations

import numpy as np
import pytest

import parity


def rows(seed: int = 0, tokens: int = 12, vocab: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 4, (tokens, vocab)).astype(np.float32)


def golden_of(logits: np.ndarray, keep: int = 64) -> parity.Golden:
    """The golden a make_parity.py would write of these logits."""
    ids = [int(token) for token in logits.argmin(axis=1)]
    order = np.argsort(-logits, axis=1)[:, :keep]
    lse = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
    nll = lse[:-1] - logits[np.arange(len(ids) - 1), ids[1:]]
    best = np.take_along_axis(logits, order, axis=1)
    return parity.Golden("random", ids, order, best, lse, nll, {3: logits[3]})


def test_the_same_logits_pass() -> None:
    logits = rows()
    goldens = [golden_of(logits)]
    parity.exact(goldens, lambda ids: logits).check()
    report = parity.default(goldens, lambda ids: logits)
    report.check()
    assert report.top1 == 1 and report.kl < 1e-6 and abs(report.loss) < 1e-6


def test_one_logit_that_is_off_is_found() -> None:
    logits = rows()
    wrong = logits.copy()
    wrong[5, logits[5].argmax()] -= 0.01
    report = parity.exact([golden_of(logits)], lambda ids: wrong)
    assert report.difference == pytest.approx(0.01 / logits.max(), rel=1e-2)
    with pytest.raises(AssertionError):
        report.check()


def test_a_flip_counts_only_where_the_margin_is_clear() -> None:
    logits = rows()
    swapped = logits.copy()
    first, second = np.argsort(-logits[4])[:2]
    swapped[4, [first, second]] = logits[4, [second, first]]
    assert parity.exact([golden_of(logits)], lambda ids: swapped).flips == 0
    # the same swap outside the kept logits' comparison: a token that was not among the best
    raised = logits.copy()
    raised[4, logits[4].argmin()] = logits[4].max() + 0.5
    assert parity.exact([golden_of(logits)], lambda ids: raised).flips == 1


def test_the_divergence_is_a_lower_bound_and_whole_where_the_row_is_kept() -> None:
    logits, other = rows(), rows(seed=1)
    p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    q = other - np.log(np.exp(other).sum(axis=1, keepdims=True))
    whole = (np.exp(p) * (p - q)).sum(axis=1)
    found = parity._divergence(golden_of(logits), q.astype(np.float64))
    assert (found <= whole + 1e-6).all() and (found > 0).all()
    assert found[3] == pytest.approx(whole[3], rel=1e-4)


def test_what_is_not_finite_is_refused() -> None:
    logits = rows()
    broken = logits.copy()
    broken[0, 0] = np.nan
    with pytest.raises(AssertionError, match="not finite"):
        parity.exact([golden_of(logits)], lambda ids: broken)


def test_the_committed_goldens() -> None:
    goldens = parity.load()
    assert len(goldens) == 8 and sum(len(g.ids) for g in goldens) > 700
    assert sum(len(g.rows) for g in goldens) == 3
    for golden in goldens:
        assert golden.top_ids.shape == golden.top_logits.shape == (len(golden.ids), 64)
        assert len(golden.nll) == len(golden.ids) - 1
        for position, row in golden.rows.items():
            assert row.argmax() == golden.top_ids[position, 0]
    assert parity.SMOLLM2.stat().st_size < 1_500_000
