"""sample: every filter against NumPy, and what must hold to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.sample_rows import ALMOST_ONE, INF, SETTINGS, Rows, drawn, normal
from nanocupy.device.protocols import KernelError
from nanocupy.kernels import sample
from nanocupy.kernels.sample import cpu


@settings(max_examples=100, deadline=None)
@given(
    vocabulary=st.integers(2, 300),
    seed=st.integers(0, 1 << 30),
    scale=st.sampled_from([0.1, 1.0, 4.0, 30.0]),
    rows=st.lists(SETTINGS, min_size=1, max_size=5),
)
def test_agrees_with_numpy(
    run: Any, vocabulary: int, seed: int, scale: float, rows: list[dict[str, Any]]
) -> None:
    logits = normal(len(rows), vocabulary, scale=scale, seed=seed)
    Rows(logits, **{name: [row[name] for row in rows] for name in rows[0]}).check(run)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_large_vocabulary(run: Any, scale: float) -> None:
    columns = {
        "temperature": [0, 1, 1, 1, 1, 0.6, 5],
        "top_k": [0, 0, 50, 0, 0, 20, 3000],
        "top_p": [1, 1, 1, 0.9, 1, 0.95, 0.999],
        "min_p": [0, 0, 0, 0, 0.05, 0.01, 1e-4],
    }
    logits = normal(7, 49152, scale=scale)
    Rows(logits, uniform=np.linspace(0.1, 0.9, 7), **columns).check(run)


# ---- greedy


def test_greedy_takes_the_first_of_the_largest(run: Any) -> None:
    x = np.zeros((4, 150))
    x[1, [149, 77]] = 1
    x[2, [3, 64]] = 2
    x[3] = -INF
    x[3, 149] = -3e38
    assert Rows(x, temperature=0.0).check(run).tolist() == [0, 77, 3, 149]


def test_a_tiny_temperature_draws_the_best(run: Any) -> None:
    x = normal(70)
    x[[20, 50]] = 20
    assert drawn(run, x, temperature=1e-40) == {20, 50}


def test_an_infinite_temperature_draws_all_alike(run: Any) -> None:
    x = np.tile([-9.0, 9.0, -INF, 0.0], (4, 1))
    rows = Rows(x, temperature=INF, uniform=[0, 0.4, 0.6, 0.9])
    assert rows.check(run).tolist() == [0, 1, 1, 3]


# ---- filters

TIED = np.array([1, 5, 3, 3, 4, 3, 0, -INF])


@pytest.mark.parametrize(
    ("top_k", "kept"),
    [
        (1, {1}),
        (2, {1, 4}),
        (3, {1, 2, 3, 4, 5}),
        (5, {1, 2, 3, 4, 5}),
        (6, {0, 1, 2, 3, 4, 5}),
        (8, {0, 1, 2, 3, 4, 5, 6}),
        (0, {0, 1, 2, 3, 4, 5, 6}),
    ],
)
def test_top_k_keeps_ties(run: Any, top_k: int, kept: set[int]) -> None:
    assert drawn(run, TIED, top_k=top_k, temperature=3.0) == kept


def test_top_k_deep_below_the_best(run: Any) -> None:
    x = np.full(6400, -INF)
    x[::64] = -0.85 * np.arange(100)  # down to e^-84
    top_k = np.array([1, 5, 10, 20, 40, 80, 99])
    token, _ = Rows(np.tile(x, (7, 1)), top_k=top_k, uniform=1).sample(run)
    assert token.tolist() == (64 * (top_k - 1)).tolist()  # the last that is kept


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.1, {2}), (0.49, {2}), (0.51, {0, 2}), (0.76, {0, 1, 2, 3}), (1.0, {0, 1, 2, 3, 4})],
)
def test_top_p_keeps_the_smallest_set_and_its_ties(run: Any, top_p: float, kept: set[int]) -> None:
    assert drawn(run, np.log([0.25, 0.1, 0.5, 0.1, 0.05]), top_p=top_p) == kept


def test_top_p_weighs_what_top_k_left(run: Any) -> None:
    x = np.log([0.4, 0.2, 0.2, 0.1, 0.1])
    assert drawn(run, x, top_p=0.45) == {0, 1, 2}
    assert drawn(run, x, top_p=0.45, top_k=2) == {0}  # the tie makes it 0.4 of 0.8


@pytest.mark.parametrize(("min_p", "kept"), [(0.19, {0, 1, 2}), (0.6, {0, 1}), (1.0, {0})])
def test_min_p(run: Any, min_p: float, kept: set[int]) -> None:
    assert drawn(run, np.log([0.5, 0.4, 0.1]), min_p=min_p) == kept


def test_ends_of_the_uniform(run: Any) -> None:
    x = np.full(300, -INF)
    x[[70, 100, 200]] = 0
    tokens = Rows(np.tile(x, (3, 1)), uniform=[0, ALMOST_ONE, 1]).check(run)
    assert tokens.tolist() == [70, 200, 200]


# ---- edits and targets


def test_edits(run: Any) -> None:
    x = np.tile(np.array([4.0, 3.0, -1.0, -2.0]), (5, 1))
    edits = {
        1: [(0, 2.0, 0.0)],  # 4 / 2
        2: [(0, 1.0, -INF), (1, 1.0, -2.5), (2, 0.25, 1.0)],  # -, 0.5, 0.75
        3: [(3, 1.0, 9.0)],
        4: [(i, 1.0, -INF) for i in range(4)],
    }
    for temperature in (0.0, 0.01):
        rows = Rows(x, temperature=temperature, edits=edits)
        assert rows.check(run).tolist() == [0, 1, 2, 3, -1]
        assert len(set(rows.sample(run)[1].tolist())) == 1  # lse is of the raw row


@pytest.mark.parametrize("edit", [(1, 1.0, np.nan), (1, 1.0, INF), (0, 0.0, 0.0), (1, 0.0, 0.0)])
def test_edits_to_no_number(run: Any, edit: tuple[int, float, float]) -> None:
    rows = Rows(np.array([[4.0, -INF]] * 2), temperature=[0, 1], edits={0: [edit], 1: [edit]})
    token, lse = rows.sample(run)
    assert token.tolist() == [-1, -1] and np.isfinite(lse).all()


@pytest.mark.parametrize("token", [-1, 3])
def test_an_edit_outside_the_vocabulary_is_refused(run: Any, token: int) -> None:
    with pytest.raises(KernelError, match="sample"):
        Rows(np.zeros((1, 3)), edits={0: [(token, 1, 0)]}).sample(run, threads=(1,))


def test_a_target_outside_the_vocabulary_is_refused(run: Any) -> None:
    with pytest.raises(KernelError, match="sample"):
        Rows(np.zeros((1, 3)), target=3).sample(run, threads=(1,))


def test_target(run: Any) -> None:
    x = normal(3, 90)
    rows = Rows(x, target=[5, -1, 89], temperature=0.0, edits={0: [(5, 1.0, -INF)]})
    assert rows.check(run).tolist() == [5, int(x[1].argmax()), 89]


# ---- rows that are not sound


@pytest.mark.parametrize("value", [np.nan, INF])
@pytest.mark.parametrize("at", [0, 16, 63, 64, 127, 129])
def test_a_bad_row_harms_no_other(run: Any, value: float, at: int) -> None:
    x = normal(3, 130)
    good, good_lse = Rows(x, uniform=[0.1, 0.2, 0.3]).sample(run)
    x[1, at] = value
    token, lse = Rows(x, uniform=[0.1, 0.2, 0.3], target=[-1, 4, -1]).sample(run)
    assert token.tolist() == [good[0], -1, good[2]]
    assert np.isnan(lse[1]) and lse[[0, 2]].tobytes() == good_lse[[0, 2]].tobytes()


def test_nothing_finite(run: Any) -> None:
    token, lse = Rows(np.full((1, 70), -INF)).sample(run)
    assert token[0] == -1 and np.isnan(lse[0])


def test_minus_infinity_is_never_drawn(run: Any) -> None:
    x = np.full(130, -INF)
    x[[1, 65, 128]] = [0, 1, 2]
    assert drawn(run, x) == {1, 65, 128}
    assert drawn(run, x, top_k=100, top_p=0.9999, min_p=1e-6) == {1, 65, 128}


# ---- to the bit, and in distribution


def test_a_row_does_not_depend_on_its_company(run: Any) -> None:
    x = normal(6, 333)
    columns = {
        "temperature": [0, 1, 1, 2, 1, 1],
        "top_k": [0, 0, 7, 0, 50, 0],
        "top_p": [1, 1, 1, 0.9, 0.8, 1],
        "min_p": [0, 0, 0, 0, 0, 0.05],
        "uniform": [0.3, 0.3, 0.9, 0.6, 0.5, 0.7],
    }
    together = Rows(x, **columns).sample(run)
    alone = [
        Rows(x[i], **{name: c[i] for name, c in columns.items()}).sample(run, threads=(1,))
        for i in range(6)
    ]
    for out, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert out.tobytes() == np.concatenate(parts).tobytes()


def test_frequencies(run: Any) -> None:
    p = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.04, 0.01])
    draws = 20_000
    uniform = np.random.default_rng(1).random(draws) * ALMOST_ONE
    token, _ = Rows(np.tile(np.log(p), (draws, 1)), uniform=uniform).sample(run, threads=(2,))
    counts = np.bincount(token, minlength=len(p))
    assert ((counts - draws * p) ** 2 / (draws * p)).sum() < 22.5  # 0.999 of chi-square, 6 degrees


@pytest.mark.parametrize("vocabulary", [0, sample.MOST + 1])
def test_vocabulary_is_checked(vocabulary: int) -> None:
    with pytest.raises(ValueError, match=r"\[sample\] vocabulary"):
        cpu.scratch(None, 1, vocabulary)
