"""Numbers at the edges of what dtypes hold, beside MLX's: large ones, NaN, ints below zero."""

from __future__ import annotations

import numpy as np
import pytest

from beside_mlx import FLOATS, Pair, both, ours, theirs
from nanocupy import nn as our_nn

INFINITE = float("inf")
LARGE = [[1e8, 1e8], [1e8, 0.0], [-1e30, 1e30], [88.0, 90.0], [-INFINITE, 1.0], [0.0, -1e8]]


@pytest.mark.parametrize("values", LARGE, ids=str)
def test_what_goes_by_exponentials_holds_large_numbers(values: list[float]) -> None:
    module = {ours: our_nn, theirs: pytest.importorskip("mlx.nn")}
    for dtype in FLOATS:
        x = Pair(np.clip([values], -6e4, 6e4) if dtype == "float16" else np.array([values]), dtype)
        for name in ("log_softmax", "softmax", "softmin", "log_sigmoid", "softplus"):
            both(lambda mx, of, name=name, x=x: getattr(module[mx], name)(of(x)))
        for name in ("softmax", "logsumexp", "logcumsumexp", "sigmoid", "tanh"):
            both(lambda mx, of, name=name, x=x: getattr(mx, name)(of(x)))
    row = our_nn.log_softmax(ours.array([[1e8, 1e8]])).tolist()[0]
    np.testing.assert_allclose(row, [-np.log(2)] * 2, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_ints_to_a_power_below_zero(dtype: str) -> None:
    x = Pair(np.array([2, -2, 1, -1, 0, 7]), dtype)
    y = Pair(np.array([-1, -3, -1, -2, -1, 0]), dtype)
    both(lambda mx, of: mx.power(of(x), of(y)))
    both(lambda mx, of: of(x) ** -1)
    both(lambda mx, of: mx.power(2, -1))
    both(lambda mx, of: mx.power(of(x), mx.array([-1.0])) if dtype == "none" else of(x) ** 3)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_median_of_nan_is_nan(dtype: str) -> None:
    rows = [[1, np.nan, 3], [1, 2, 3], [np.inf, -np.inf, np.nan], [np.inf, np.inf, 1]]
    x = Pair(np.array(rows), dtype)
    for how in ({}, {"axis": 1}, {"axis": 0}, {"axis": (0, 1), "keepdims": True}):
        both(lambda mx, of, how=how: mx.median(of(x), **how))


def test_ranges_of_ints_by_a_fraction() -> None:
    for start, stop, step in ((0, 3, 0.5), (-1, -4, -0.9), (0.5, 5, 1), (1, 9, 1.7), (5, 0, -0.5)):
        for dtype in ("int32", "uint8", "int8", "int64"):
            both(lambda mx, of, a=(start, stop, step), d=dtype: mx.arange(*a, dtype=getattr(mx, d)))
    both(lambda mx, of: [mx.arange(stop=3), mx.arange(1, stop=4)])
    both(lambda mx, of: mx.arange(start=1, stop=9, step=3))
    both(lambda mx, of: [mx.arange(-3, step=-1), mx.arange(stop=2, step=0.5)])
    for ends in ((0, 10), (10, 0), (0, 0)):
        for step in (INFINITE, -INFINITE):
            both(lambda mx, of, a=(*ends, step): mx.arange(*a))


def test_lines_of_doubles() -> None:
    for ends in ((0.0, np.pi), (-1, 1e17), (0.1, 0.3)):
        mine = ours.linspace(*ends, 7, dtype=ours.float64).tolist()
        assert mine == theirs.linspace(*ends, 7, dtype=theirs.float64, stream=theirs.cpu).tolist()


def test_bools_are_shifted_as_numbers() -> None:
    x = Pair(np.array([True, False]), "bool_")
    both(lambda mx, of: [mx.left_shift(of(x), of(x)), mx.right_shift(of(x), of(x)), of(x) << 2])


def test_closeness_with_tolerances_below_zero() -> None:
    x = Pair(np.array([1.0, INFINITE, np.nan]), "float32")
    both(lambda mx, of: mx.isclose(of(x), of(x), -1, -1))
    both(lambda mx, of: mx.isclose(of(x), of(x)))


def test_negative_padding_of_convolutions() -> None:
    x = Pair(np.arange(14).reshape(1, 7, 2), "float32")
    w = Pair(np.arange(6).reshape(1, 3, 2), "float32")
    for padding in (-1, ([-1], [2]), ([1], [-2])):
        both(lambda mx, of, p=padding: mx.conv_general(of(x), of(w), padding=p))


# ---- attention


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("with_sinks", [False, True])
def test_a_row_that_sees_nothing(dtype: str, with_sinks: bool) -> None:
    """Left-padded batches have such rows; one NaN in them would spread to all."""
    rng = np.random.default_rng(0)
    q = Pair(rng.normal(0, 1, (2, 4, 3, 8)), dtype)
    k, v = (Pair(rng.normal(0, 1, (2, 2, 5, 8)), dtype) for _ in range(2))
    seen = rng.random((2, 1, 3, 5)) < 0.6
    seen[0, :, 1] = False
    seen[1] = False
    sinks = Pair(rng.normal(0, 1, 4), dtype)
    added = Pair(np.where(seen, 0, -1e4), dtype)  # of halves, MLX rounds the sum
    for mask in (Pair(seen, "bool_"), *([added] if dtype == "float32" else [])):
        both(
            lambda mx, of, mask=mask: mx.fast.scaled_dot_product_attention(
                of(q), of(k), of(v), scale=0.3, mask=of(mask),
                sinks=of(sinks) if with_sinks else None,
            )
        )  # fmt: skip
    if not with_sinks:
        out = ours.fast.scaled_dot_product_attention(
            q.ours, k.ours, v.ours, scale=0.3, mask=ours.array(seen)
        )
        assert np.isfinite(out.numpy().astype(np.float32)).all()


def test_more_queries_than_keys_under_a_causal_mask() -> None:
    rng = np.random.default_rng(1)
    q, k = (Pair(rng.normal(0, 1, (1, 2, n, 8)), "float32") for n in (6, 4))
    both(
        lambda mx, of: mx.fast.scaled_dot_product_attention(
            of(q), of(k), of(k), scale=0.3, mask="causal"
        )
    )


def test_norms_of_half_floats_with_weights_of_floats() -> None:
    x = Pair(np.random.default_rng(0).normal(0, 1, (2, 8)), "float16")
    w = Pair(np.linspace(-1, 2, 8), "float32")
    both(lambda mx, of: mx.fast.rms_norm(of(x), of(w), 1e-5))
    both(lambda mx, of: mx.fast.layer_norm(of(x), of(w), None, 1e-5))
    both(lambda mx, of: mx.fast.layer_norm(of(x), None, of(w), 1e-5))


def test_positions_far_away_and_below_zero() -> None:
    x = Pair(np.random.default_rng(0).normal(0, 1, (2, 1, 3, 8)), "float32")
    how = {"traditional": False, "base": 1e4, "scale": 1.0}
    both(lambda mx, of: mx.fast.rope(of(x), 8, offset=-5, **how))
    both(lambda mx, of: mx.fast.rope(of(x), 8, offset=mx.array(7), **how))
    far = ours.fast.rope(x.ours, 8, offset=ours.array([0, 2**30]), **how)  # no table of 2**30 lines
    assert np.isfinite(far.numpy()).all()


# ---- random ints


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (2**24, 2**24 + 2, "int32"), (-(2**24) - 2, -(2**24), "int32"), (0, 2**31 - 1, "int32"),
        (2**31, 2**31 + 3, "uint32"), (0, 2**40, "int64"), (2**53, 2**53 + 2, "int64"),
        (-(2**63), 2**63 - 1, "int64"), (0, 2**62, "uint64"), (5, 5, "int32"), (5, 3, "int32"),
    ],
)  # fmt: skip
def test_random_ints_lie_in_their_range(low: int, high: int, dtype: str) -> None:
    values = ours.random.randint(low, high, (4000,), getattr(ours, dtype), ours.random.key(1))
    drawn = [int(v) for v in values.tolist()]
    assert str(values.dtype) == dtype
    if high <= low:
        assert set(drawn) == {low}
        return
    assert low <= min(drawn) and max(drawn) < high
    if high - low < 10:
        counts = [drawn.count(v) for v in range(low, high)]
        assert min(counts) > 0.8 * 4000 / (high - low)
    elif high - low > 2**30:
        assert len({v % 1024 for v in drawn}) > 900  # the low bits are there, too
        assert abs(sum(v - low for v in drawn) / 4000 / (high - low) - 0.5) < 0.03


def test_random_ints_of_arrays_of_bounds() -> None:
    both(
        lambda mx, of: mx.random.randint(
            mx.array([0, 10]), mx.array([5, 20]), (3, 2), key=mx.random.key(0)
        )
    )
    both(lambda mx, of: mx.random.randint(0.5, 10.7, (9,), key=mx.random.key(0)))
    both(lambda mx, of: mx.random.randint(2**24, 2**24 + 2, (9,), key=mx.random.key(0)))
    low, high = ours.array([0, 2**40]), ours.array([3, 2**40 + 3])
    drawn = np.array(ours.random.randint(low, high, (500, 2), ours.int64, ours.random.key(0)))
    assert sorted(set(drawn[:, 0])) == [0, 1, 2]
    assert sorted(set(drawn[:, 1] - 2**40)) == [0, 1, 2]


# ---- random floats


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_random_halves_to_the_bit(dtype: str) -> None:
    for name, how in (
        ("normal", {}), ("normal", {"loc": 1.0, "scale": 2.0}), ("laplace", {}),
        ("laplace", {"loc": 1.0, "scale": 2.0}), ("gumbel", {}), ("uniform", {}),
    ):  # fmt: skip
        both(
            lambda mx, of, name=name, how=how: getattr(mx.random, name)(
                shape=(20000,), dtype=getattr(mx, dtype), key=mx.random.key(3), **how
            ),
            exact=True,
        )


def test_distributions_between_bounds_that_have_changed_places() -> None:
    for lower, upper in ((2, -2), (2, 2), (-1, 1)):
        both(
            lambda mx, of, a=lower, b=upper: mx.random.truncated_normal(
                a, b, (50,), key=mx.random.key(0)
            ),
            loose=True,
        )


def test_samples_of_one_distribution() -> None:
    for values in ([0.1, 2.0, -1.0], [-INFINITE, 0.0], [INFINITE, 1.0, INFINITE]):
        for how in ({}, {"num_samples": 40}, {"shape": (5, 8)}):
            both(
                lambda mx, of, v=values, how=how: mx.random.categorical(
                    mx.array(v), key=mx.random.key(5), **how
                )
            )


def test_probabilities_outside_of_zero_and_one() -> None:
    for p in (-1.0, 0.0, 0.3, 1.0, 2.0):
        both(lambda mx, of, p=p: mx.random.bernoulli(p, (999,), key=mx.random.key(2)), exact=True)
