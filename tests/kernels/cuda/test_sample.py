"""sample on CUDA: every filter against NumPy, and what must hold to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from kernels.sample_rows import ALMOST_ONE, INF, SETTINGS, Rows, drawn, normal

COLUMNS = {
    "temperature": [0, 1, 1, 2, 1, 1],
    "top_k": [0, 0, 7, 0, 50, 0],
    "top_p": [1, 1, 1, 0.9, 0.8, 1],
    "min_p": [0, 0, 0, 0, 0, 0.05],
    "uniform": [0.3, 0.3, 0.9, 0.6, 0.5, 0.7],
}


@examples(40)
@given(
    vocabulary=st.integers(1, 300),
    seed=st.integers(0, 1 << 30),
    scale=st.sampled_from([0.1, 1.0, 4.0, 30.0]),
    rows=st.lists(SETTINGS, min_size=1, max_size=5),
)
def test_agrees_with_numpy(
    cuda: Any, vocabulary: int, seed: int, scale: float, rows: list[dict[str, Any]]
) -> None:
    logits = normal(len(rows), vocabulary, scale=scale, seed=seed)
    Rows(logits, **{name: [row[name] for row in rows] for name in rows[0]}).check(cuda)


@pytest.mark.parametrize("scale", [0.02, 0.5, 3.0])
def test_large_vocabulary(cuda: Any, scale: float) -> None:
    """Where candidates move to shared memory: at once, after a while, or never, all being equal."""
    columns = {
        "temperature": [1, 1, 1, 0.6, 5],
        "top_k": [50, 0, 0, 20, 3000],
        "top_p": [1, 0.9, 1, 0.95, 0.999],
        "min_p": [0, 0, 0.05, 0.01, 1e-4],
    }
    logits = normal(5, 9001, scale=scale)
    Rows(logits, uniform=np.linspace(0.1, 0.9, 5), **columns).check(cuda)


def test_many_values_none_alike(cuda: Any) -> None:
    """Thresholds next to one another: the k-th of 6000 in steps of 2^-23."""
    x = np.random.default_rng(0).permutation(np.log1p(-np.arange(6000) * 1e-5))
    kept = np.argsort(-x)[:5000]
    token, _ = Rows(x, top_k=5000, uniform=ALMOST_ONE).sample(cuda)
    assert token[0] == kept.max()  # the last in the row that is kept
    token, _ = Rows(x, top_k=1, uniform=0.5).sample(cuda)
    assert token[0] == x.argmax()


# ---- greedy


def test_greedy_takes_the_first_of_the_largest(cuda: Any) -> None:
    x = np.zeros((5, 150))
    x[1, [149, 77]] = 1
    x[2, [3, 64]] = 2
    x[3] = -INF
    x[3, 149] = -3e38
    x[4, :140] = -0.0
    assert Rows(x, temperature=0.0).check(cuda).tolist() == [0, 77, 3, 149, 0]


def test_an_infinite_temperature_draws_all_alike(cuda: Any) -> None:
    x = np.tile([-9.0, 9.0, -INF, 0.0], (4, 1))
    rows = Rows(x, temperature=INF, uniform=[0, 0.4, 0.6, 0.9])
    assert rows.check(cuda).tolist() == [0, 1, 1, 3]


# ---- filters

TIED = np.array([1, 5, 3, 3, 4, 3, 0, -INF])


@pytest.mark.parametrize(
    ("top_k", "kept"),
    [
        (1, {1}),
        (2, {1, 4}),
        (3, {1, 2, 3, 4, 5}),
        (6, {0, 1, 2, 3, 4, 5}),
        (8, {0, 1, 2, 3, 4, 5, 6}),
        (0, {0, 1, 2, 3, 4, 5, 6}),
    ],
)
def test_top_k_keeps_ties(cuda: Any, top_k: int, kept: set[int]) -> None:
    assert drawn(cuda, TIED, 50, top_k=top_k, temperature=3.0) == kept


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.0, {2}), (0.49, {2}), (0.51, {0, 2}), (0.76, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_smallest_set_and_its_ties(cuda: Any, top_p: float, kept: set[int]) -> None:
    assert drawn(cuda, np.log([0.25, 0.1, 0.5, 0.1, 0.05]), 50, top_p=top_p) == kept


def test_top_p_weighs_what_top_k_left(cuda: Any) -> None:
    x = np.log([0.4, 0.2, 0.2, 0.1, 0.1])
    assert drawn(cuda, x, 50, top_p=0.45) == {0, 1, 2}
    assert drawn(cuda, x, 50, top_p=0.45, top_k=2) == {0}  # the tie makes it 0.4 of 0.8


@pytest.mark.parametrize(("min_p", "kept"), [(0.19, {0, 1, 2}), (0.6, {0, 1}), (1.0, {0})])
def test_min_p(cuda: Any, min_p: float, kept: set[int]) -> None:
    assert drawn(cuda, np.log([0.5, 0.4, 0.1]), 50, min_p=min_p) == kept


def test_what_weighs_nothing_is_passed_over(cuda: Any) -> None:
    """The first token has a probability, but below 2^-42: not even 0 draws it."""
    assert Rows([-40.0, -60.0, 0.0, -28.0], uniform=0.0).sample(cuda)[0].tolist() == [2]


def test_ends_of_the_uniform(cuda: Any) -> None:
    x = np.full(300, -INF)
    x[[70, 100, 200]] = 0
    tokens = Rows(np.tile(x, (3, 1)), uniform=[0, ALMOST_ONE, 1]).check(cuda)
    assert tokens.tolist() == [70, 200, 200]


# ---- edits and targets


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_edits(cuda: Any, temperature: float) -> None:
    x = np.tile(np.array([4.0, 3.0, -1.0, -2.0]), (6, 1))
    edits = {
        1: [(0, 2.0, 0.0)],  # 4 / 2
        2: [(0, 1.0, -INF), (1, 1.0, -2.5), (2, 0.25, 1.0)],  # -, 0.5, 0.75
        3: [(3, 1.0, 9.0)],
        4: [(i, 1.0, -INF) for i in range(4)],
        5: [(0, 1.0, -INF), (2, 0.25, 4.0)],  # -, 3, 3.75
    }
    rows = Rows(x, temperature=temperature, edits=edits)
    assert rows.check(cuda).tolist() == [0, 1, 2, 3, -1, 2]
    assert len(set(rows.sample(cuda)[1].tolist())) == 1  # lse is of the raw row


def test_more_edits_than_threads(cuda: Any) -> None:
    edits = {1: [(i, 1.0, -INF) for i in range(300) if i != 222]}
    assert Rows(normal(2, 300), edits=edits, uniform=0.9).check(cuda)[1] == 222


@pytest.mark.parametrize("edit", [(1, 1.0, np.nan), (1, 1.0, INF), (0, 0.0, 0.0), (1, 0.0, 0.0)])
def test_edits_to_no_number(cuda: Any, edit: tuple[int, float, float]) -> None:
    rows = Rows(np.array([[4.0, -INF]] * 3), temperature=[0, 1, 1], edits={0: [edit], 1: [edit]})
    token, lse = rows.sample(cuda)
    assert token.tolist() == [-1, -1, 0] and np.isfinite(lse).all()


@pytest.mark.parametrize("bad", [-1, 3, 1 << 30])
def test_an_edit_outside_the_vocabulary_is_passed_over(cuda: Any, bad: int) -> None:
    x = np.array([[0.0, 2.0, 1.0]] * 2)
    rows = Rows(x, temperature=0.0, edits={0: [(bad, 1.0, 9.0), (1, 1.0, -5.0)]})
    assert rows.sample(cuda)[0].tolist() == [2, 1]


def test_target(cuda: Any) -> None:
    x = normal(4, 90)
    rows = Rows(x, target=[5, -1, 89, 90], temperature=0.0, edits={0: [(5, 1.0, -INF)]})
    token, lse = rows.sample(cuda)
    assert token.tolist() == [5, int(x[1].argmax()), 89, -1] and np.isfinite(lse).all()


# ---- rows that are not sound


@pytest.mark.parametrize("value", [np.nan, INF])
@pytest.mark.parametrize("at", [0, 63, 129])
def test_a_bad_row_harms_no_other(cuda: Any, value: float, at: int) -> None:
    x = normal(3, 130)
    good, good_lse = Rows(x, uniform=[0.1, 0.2, 0.3]).sample(cuda)
    x[1, at] = value
    token, lse = Rows(x, uniform=[0.1, 0.2, 0.3], target=[-1, 4, -1]).sample(cuda)
    assert token.tolist() == [good[0], -1, good[2]]
    assert np.isnan(lse[1]) and lse[[0, 2]].tobytes() == good_lse[[0, 2]].tobytes()


def test_nothing_finite(cuda: Any) -> None:
    token, lse = Rows(np.full((1, 70), -INF)).sample(cuda)
    assert token[0] == -1 and np.isnan(lse[0])


def test_minus_infinity_is_never_drawn(cuda: Any) -> None:
    x = np.full(130, -INF)
    x[[1, 65, 128]] = [0, 1, 2]
    assert drawn(cuda, x, 50) == {1, 65, 128}
    assert drawn(cuda, x, 50, top_k=100, top_p=0.9999, min_p=1e-6) == {1, 65, 128}


# ---- to the bit, and in distribution


@pytest.mark.parametrize("vocabulary", [333, 4500])
def test_a_row_does_not_depend_on_its_company(cuda: Any, vocabulary: int) -> None:
    x = normal(6, vocabulary)
    together = Rows(x, **COLUMNS).sample(cuda)
    alone = [
        Rows(x[i], **{name: c[i] for name, c in COLUMNS.items()}).sample(cuda) for i in range(6)
    ]
    for out, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert out.tobytes() == np.concatenate(parts).tobytes()


def test_the_number_of_threads_makes_no_difference(cuda: Any) -> None:
    """Padded with what is never drawn, a row goes to 1024 threads in place of 128."""
    x = normal(6, 4096)
    wide = np.full((6, 4097), -INF)
    wide[:, :4096] = x
    assert np.array_equal(Rows(x, **COLUMNS).sample(cuda)[0], Rows(wide, **COLUMNS).sample(cuda)[0])


@pytest.mark.parametrize("vocabulary", [256, 8192])
def test_a_boundary_belongs_to_the_next_token(cuda: Any, vocabulary: int) -> None:
    """Equal tokens are as many units of mass each, so that sums meet the uniforms exactly."""
    tokens = np.array([0, 1, 63, 64, 128, 250])
    rows = Rows(np.zeros((6, vocabulary)), uniform=tokens / vocabulary)
    assert rows.sample(cuda)[0].tolist() == tokens.tolist()


def test_frequencies(cuda: Any) -> None:
    p = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.04, 0.01])
    draws = 1000
    uniform = (np.arange(draws) + 0.5) / draws  # one in every 1000th: no chance is left
    token, _ = Rows(np.tile(np.log(p), (draws, 1)), uniform=uniform).sample(cuda)
    counts = np.bincount(token, minlength=len(p))
    assert (np.abs(counts - draws * p) <= 1).all()
