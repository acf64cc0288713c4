"""Choosing experts, listing their rows, adding up what they made."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import fixed_rows
from nanocupy.kernels import experts
from nanocupy.kernels.experts import cpu


def choose(run: Any, logits: np.ndarray, chosen: int, normalised: bool) -> list[np.ndarray]:
    """(weights, lists, counts) of logits [rows, experts]."""
    rows, count = logits.shape
    wide = np.pad(logits, [(0, 0), (0, 5)])

    def build(device: CpuDevice) -> Any:
        weights, out = device.empty((rows, count), np.float32), device.empty((rows, 21), np.float32)
        lists, counts = device.empty((count, rows), np.int32), device.empty((count,), np.int64)
        out[:], lists[:] = 1, -1
        known = fixed_rows(device, rows)
        how = {"width": 21, "chosen": chosen, "normalised": normalised}
        launches = [
            cpu.choose_experts(
                weights, out, device.asarray(wide), known, logits_stride=count + 5, **how
            ),
            cpu.list_rows(lists, counts, weights, known),
        ]
        return launches, [weights, lists, counts, out]

    *found, out = run(build)
    assert not out.any()
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_the_largest_are_chosen(
    run: Any, rows: int, count: int, chosen: int, normalised: bool, seed: int
) -> None:
    chosen = min(chosen, count)
    logits = np.random.default_rng(seed).standard_normal((rows, count)).astype(np.float32) * 3
    weights, lists, counts = choose(run, logits, chosen, normalised)
    want = experts.choose_reference(logits, chosen, normalised)
    np.testing.assert_allclose(weights, want, rtol=3e-6)
    assert ((weights > 0).sum(1) == chosen).all()
    for number in range(count):
        assert lists[number, : counts[number]].tolist() == np.flatnonzero(want[:, number]).tolist()


def test_of_equals_the_first_and_nan_stays(run: Any) -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2], logits[2, 3] = np.nan, 400
    weights, lists, counts = choose(run, logits, 2, True)
    assert weights[0].tolist() == [0.5, 0.5, 0, 0] and np.isnan(weights[1]).all()
    assert weights[2].tolist() == [0, 0, 0, 1]  # what underflows adds nothing
    assert counts.tolist() == [2, 2, 1, 2] and lists[3, :2].tolist() == [1, 2]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.lists(st.integers(0, 5), max_size=6, unique=True))
def test_rows_are_added_where_they_belong(run: Any, width: int, chosen: list[int]) -> None:
    rng = np.random.default_rng(0)
    start, y = (rng.standard_normal((6, width)).astype(np.float32) for _ in range(2))
    weights = rng.standard_normal((6, 3)).astype(np.float32)
    index = np.array(sorted(chosen) + [0] * (6 - len(chosen)), np.int32)

    def build(device: CpuDevice) -> Any:
        out = device.asarray(start.copy())
        arrays = [device.asarray(a) for a in (y, index, weights)]
        known = fixed_rows(device, len(chosen))
        return [cpu.add_rows(out, *arrays, 1, known)], [out]

    want = start.copy()
    for i, row in enumerate(sorted(chosen)):
        want[row] += weights[row, 1] * y[i]
    np.testing.assert_allclose(run(build)[0], want, rtol=1e-6, atol=1e-6)
