"""layer_norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import fixed_rows
from nanocupy.kernels import launches_of, layer_norm

CPU = launches_of("cpu")


def norm(
    run: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, gap: int = 0
) -> np.ndarray:
    rows, size = x.shape

    def build(device: CpuDevice) -> Any:
        out = device.empty((rows + 1, size), np.float32)
        arrays = [device.asarray(a) for a in (np.pad(x, [(0, 0), (0, gap)]), weight, bias)]
        place = {"x_stride": size + gap}
        known = fixed_rows(device, rows)
        return [CPU.layer_norm.launch(device, out, *arrays, eps, known, size, **place)], [out]

    out: np.ndarray = run(build)[0]
    assert not out[-1].any()
    return out[:-1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(1, 70), st.integers(0, 5), st.floats(-50, 50, width=32))
def test_agrees_with_numpy(run: Any, rows: int, size: int, gap: int, far: float) -> None:
    """Also where the mean is far from zero."""
    rng = np.random.default_rng(size)
    x = rng.standard_normal((rows, size)).astype(np.float32) + np.float32(far)
    weight, bias = rng.standard_normal((2, size)).astype(np.float32)
    got = norm(run, x, weight, bias, 1e-5, gap)
    want = layer_norm.reference(x.astype(np.float64), weight, bias, 1e-5)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-4)


def test_a_row_does_not_depend_on_others(run: Any) -> None:
    x = np.random.default_rng(0).standard_normal((5, 39)).astype(np.float32)
    ones = np.ones(39, np.float32)
    alone = [norm(run, x[i : i + 1], ones, ones, 1e-6) for i in range(5)]
    assert np.array_equal(norm(run, x, ones, ones, 1e-6), np.concatenate(alone))


@pytest.mark.parametrize("size", [3, 16])
def test_nan_stays_in_its_row(run: Any, size: int) -> None:
    x, ones = np.arange(2 * size, dtype=np.float32).reshape(2, size), np.ones(size, np.float32)
    x[0, 1] = np.nan
    got = norm(run, x, ones, ones, 1e-5)
    assert np.isnan(got[0]).all() and np.isfinite(got[1]).all()
