"""A mixture of experts on CUDA: choosing, listing, products by list, adding up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from kernels.cuda.test_affine import activations, check, make
from nanocupy.device.protocols import Rows
from nanocupy.kernels import experts, launches_of
from nanocupy.kernels.experts import cuda as kernel

CUDA = launches_of("cuda")

POISON = 7


def choose(
    cuda: Any, logits: np.ndarray, chosen: int, normalised: bool, spare: int = 2
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """(picks, weights, each expert's places) of logits [rows, experts]; spare rows are let be."""
    count, many = logits.shape
    wide = np.full((count + spare, many + 5), np.nan, np.float32)
    wide[:count, :many] = logits

    def build(device: Any) -> Any:
        rows = Rows(count + spare, device.asarray(np.array([count])))
        picks = device.asarray(np.full((count + spare, chosen), POISON, np.int32))
        weights = device.asarray(np.full((count + spare, chosen), POISON, np.float32))
        places = kernel.Places(
            device.asarray(np.full((many, count + spare), -1, np.int32)),
            device.empty((many + 1,), np.int64),
        )
        how = {"experts": many, "normalised": normalised, "logits_stride": many + 5}
        launches = [
            kernel.choose_experts(picks, weights, device.asarray(wide), rows, **how),
            kernel.list_pairs(places, picks, rows, chosen=chosen, picks_stride=chosen),
        ]
        return launches, [picks, weights, places.lists, places.counts]

    picks, weights, lists, counts = cuda(build)
    assert (picks[count:] == POISON).all() and (weights[count:] == POISON).all()
    assert counts[many] == count * chosen
    for own, size in zip(lists, counts, strict=False):
        assert (own[size:] == -1).all()
    listed = [own[:size].tolist() for own, size in zip(lists, counts, strict=False)]
    return picks[:count], weights[:count], listed


@pytest.mark.parametrize("many", [5, 40])
@examples(8)
@example(300, 4, False, 0)  # more places than a block has threads
@given(st.integers(0, 300), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_the_largest_are_chosen(
    cuda: Any, many: int, rows: int, chosen: int, normalised: bool, seed: int
) -> None:
    """As the reference that the CPU's kernel has; experts ascending, and every list whole."""
    chosen = min(chosen, many)
    logits = np.random.default_rng(seed).standard_normal((rows, many)).astype(np.float32) * 3
    picks, weights, lists = choose(cuda, logits, chosen, normalised)
    if rows:
        found = np.zeros_like(logits)
        np.put_along_axis(found, picks.astype(np.int64), weights, axis=1)
        want = experts.choose_reference(logits, chosen, normalised)
        np.testing.assert_allclose(found, want, rtol=3e-6)
    assert (np.diff(picks, axis=1) > 0).all()
    for number, own in enumerate(lists):
        assert own == np.flatnonzero(picks == number).tolist()


def test_of_equals_the_first_and_nan_stays(cuda: Any) -> None:
    logits = np.zeros((4, 4), np.float32)
    logits[1, 2], logits[2, 3], logits[3, :3] = np.nan, 400, -np.inf
    picks, weights, _ = choose(cuda, logits, 2, True)
    assert picks.tolist() == [[0, 1], [0, 1], [0, 3], [0, 3]]
    assert weights[0].tolist() == [0.5, 0.5] and np.isnan(weights[1]).all()
    assert weights[2].tolist() == weights[3].tolist() == [0, 1]


def test_too_many_are_refused() -> None:
    picks = np.zeros((1, 33), np.int32)
    rows = Rows(1, np.array([1]))
    with pytest.raises(NotImplementedError, match="33 chosen: up to 32 on CUDA"):
        how = {"experts": 64, "normalised": True, "logits_stride": 64}
        kernel.choose_experts(picks, picks, picks, rows, **how)


@pytest.mark.parametrize(
    ("bits", "kind", "meets", "n", "k", "capacity"),
    [
        (0, "", "f32", 21, 50, 7),  # four columns at once, and what is left of them
        (0, "", "bf16", 33, 264, 5),
        (0, "", "f16", 16, 64, 1),
        (4, "bf16", "bf16", 21, 96, 6),
        (8, "f32", "f32", 17, 64, 9),
        (4, "f16", "f16", 5, 64, 1),
    ],
)
@pytest.mark.parametrize("share", [1, 2])
def test_every_row_meets_its_experts(
    cuda: Any, bits: int, kind: str, meets: str, n: int, k: int, capacity: int, share: int
) -> None:
    """Two of four experts a row, of which one is everybody's and one nobody's."""
    used = max(1, capacity - 2)
    rng = np.random.default_rng(capacity)
    picks = np.array([[1, rng.choice([0, 2])] for _ in range(used)], np.int32)
    owners = picks.reshape(-1)
    x = activations(meets, used * 2 // share, k, 3)
    if bits:
        made = [make(bits, kind, n, k, 32, seed) for seed in range(4)]
        raw, plain = [m.raw for m in made], [m.plain for m in made]
    else:
        raw = [activations(meets, n, k, seed) for seed in range(4)]
        plain = [w.astype(np.float32) for w in raw]

    held: list[Any] = []

    def build(device: Any) -> Any:
        packed = [CUDA.linear.pack(device, [each], meets)[0] for each in raw]
        lists = np.full((4, capacity), 1 << 28, np.int32)
        for expert in range(4):
            own = np.flatnonzero(owners == expert)
            lists[expert, : len(own)] = own
        counts = np.array([*np.bincount(owners, minlength=4), len(owners)], np.int64)
        places = kernel.Places(device.asarray(lists), device.asarray(counts))
        out = device.asarray(np.full((2 * capacity, n + 3), POISON, np.float32))
        weights, rows = kernel.weights_of(device, packed), Rows(capacity, places.counts)
        held.append(weights)  # a launch has their addresses only
        how = {"share": share, "out_stride": n + 3}
        inputs = (device.asarray(x), weights, places, rows)
        return [kernel.expert_linear(out, *inputs, **how)], [out]

    (out,) = cuda(build)
    assert (out[:, n:] == POISON).all() and (out[2 * used :] == POISON).all()
    for place, expert in enumerate(owners):
        got, row = out[place : place + 1, :n], x[place // share][None]
        if bits:
            check(got, row, made[expert], 0)
        else:
            want = row.astype(np.float32) @ plain[expert].T
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * k)


@examples(8)
@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 4))
def test_results_are_added_up(cuda: Any, width: int, rows: int, chosen: int) -> None:
    rng = np.random.default_rng(width)
    y = rng.standard_normal(((rows + 1) * chosen, width)).astype(np.float32)
    weights = rng.standard_normal((rows + 1, chosen)).astype(np.float32)

    def build(device: Any) -> Any:
        out = device.asarray(np.full((rows + 1, width), POISON, np.float32))
        count = Rows(rows + 1, device.asarray(np.array([rows])))
        arrays = device.asarray(y), device.asarray(weights)
        return [kernel.sum_experts(out, *arrays, count)], [out]

    (out,) = cuda(build)
    assert (out[rows:] == POISON).all()
    want = (y.reshape(rows + 1, chosen, width) * weights[..., None]).sum(1)[:rows]
    np.testing.assert_allclose(out[:rows], want, rtol=1e-5, atol=1e-5)
