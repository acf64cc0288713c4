"""rms_norm and add_rms_norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import fixed_rows
from nanocupy.kernels import rms_norm
from nanocupy.kernels.rms_norm import cpu


def make(rows: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, r = (rng.standard_normal((rows, size)).astype(np.float32) for _ in range(2))
    return x, r, rng.standard_normal(size).astype(np.float32)


def norm(run: Any, x: np.ndarray, weight: np.ndarray, start: int = 0, **place: int) -> np.ndarray:
    """The kernel on x [rows, width] from `start` on, `vectors` vectors of len(weight) a row."""
    width = place.get("vectors", 1) * len(weight)

    def build(device: CpuDevice) -> Any:
        out, rows = device.empty((len(x) + 1, width), np.float32), fixed_rows(device, len(x))
        arrays = (device.asarray(x).reshape(-1)[start:], device.asarray(weight))
        return [cpu.launch(device, out, *arrays, 1e-5, rows, **place)], [out]

    out: np.ndarray = run(build)[0]
    assert not out[-1].any()  # the row past the end is left alone
    return out[:-1]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 9), size=st.integers(1, 130), seed=st.integers(0, 9))
def test_agrees_with_numpy(run: Any, rows: int, size: int, seed: int) -> None:
    x, _, weight = make(rows, size, seed)
    want = rms_norm.reference(x, weight, 1e-5)
    np.testing.assert_allclose(norm(run, x, weight), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [576, 100])
def test_a_row_does_not_depend_on_its_company(run: Any, size: int) -> None:
    x, _, weight = make(7, size)
    alone = [norm(run, x[i : i + 1], weight) for i in range(7)]
    assert norm(run, x, weight).tobytes() == np.concatenate(alone).tobytes()


def test_heads_inside_a_wider_buffer(run: Any) -> None:
    x, _, _ = make(5, 320)
    weight = make(1, 64)[2]
    got = norm(run, x, weight, vectors=3, start=128, x_stride=320)
    heads = x[:, 128:].reshape(5, 3, 64)
    assert got.tobytes() == norm(run, heads.reshape(15, 64), weight).tobytes()


@pytest.mark.parametrize("size", [576, 37])
def test_add_rms_norm_is_add_then_rms_norm(run: Any, size: int) -> None:
    x, r, weight = make(5, size)

    def build(device: CpuDevice) -> Any:
        h, out = (device.empty((5, size), np.float32) for _ in range(2))
        arrays = (device.asarray(x), device.asarray(r), device.asarray(weight))
        rows = fixed_rows(device, 5)
        return [cpu.launch_add(device, h, out, *arrays, 1e-5, rows)], [h, out]

    h, out = run(build)
    assert h.tobytes() == (x + r).tobytes()
    assert out.tobytes() == norm(run, x + r, weight).tobytes()
    np.testing.assert_allclose(
        out, rms_norm.add_reference(x, r, weight, 1e-5)[1], rtol=1e-6, atol=1e-6
    )


def test_nan_stays_in_its_row(run: Any) -> None:
    x, _, weight = make(3, 64)
    x[1, 5] = np.nan
    got = norm(run, x, weight)
    assert np.isnan(got[1]).all() and np.isfinite(got[[0, 2]]).all()
