"""softmax, argsort, take_along, sum_axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanocupy.device.protocols import KernelError, fixed_rows
from nanocupy.kernels import routing
from nanocupy.kernels.routing import cpu as kernel

POISON = 7
OPS: dict[str, Any] = {
    "softmax": (kernel.launch_softmax, routing.softmax_reference, np.float32),
    "argsort": (kernel.launch_argsort, routing.argsort_reference, np.int32),
}


def apply(
    run: Any, launch: Any, x: np.ndarray, *more: Any, shape: Any, dtype: Any, **how: Any
) -> Any:
    """The launch on x [rows, ...], rows of which have three elements more."""
    count = len(x)
    wide = np.pad(x.reshape(count, int(np.prod(x.shape[1:]))), [(0, 0), (0, 3)])
    threads = how.pop("threads", (1, 2, 3))

    def build(device: Any) -> Any:
        out = device.asarray(np.full((count + 1, *shape), POISON, dtype))
        arrays = [device.asarray(a) for a in (wide, *(m for m in more if not isinstance(m, int)))]
        numbers = [m for m in more if isinstance(m, int)]
        place = {"x_stride": wide.shape[1]} | how
        return [launch(device, out, *arrays, fixed_rows(device, count), *numbers, **place)], [out]

    (out,) = run(build, threads)
    assert (out[count:] == POISON).all()
    return out[:count]


def normal(*shape: int) -> np.ndarray:
    """Numbers of which some are equal."""
    return (np.random.default_rng(0).integers(-8, 8, shape) / 4).astype(np.float32)


@settings(max_examples=20, deadline=None)
@example(rows=2, vectors=3, size=40)
@given(rows=st.integers(0, 3), vectors=st.integers(1, 3), size=st.integers(1, 70))
def test_agrees_with_numpy(run: Any, rows: int, vectors: int, size: int) -> None:
    x = normal(rows, vectors, size)
    for launch, reference, dtype in OPS.values():
        got = apply(run, launch, x, vectors, size, shape=(vectors, size), dtype=dtype)
        if rows:
            np.testing.assert_allclose(got, reference(x), rtol=3e-6)
    index = np.random.default_rng(1).integers(0, size, (rows, vectors, 2)).astype(np.int32)
    how: dict[str, Any] = {"shape": (vectors, 2), "dtype": np.float32, "index_stride": 2 * vectors}
    got = apply(run, kernel.launch_take_along, x, index, vectors, size, 2, **how)
    np.testing.assert_array_equal(got, routing.take_along_reference(x, index))
    y = normal(rows, vectors, 3, size)
    how = {"shape": (vectors, size), "dtype": np.float32}
    got = apply(run, kernel.launch_sum, y, vectors, 3, size, **how)
    np.testing.assert_allclose(got, routing.sum_axis_reference(y), rtol=1e-6, atol=1e-6)


def test_nan_comes_last(run: Any) -> None:
    x = np.array([[[np.nan, 1, -np.inf, np.nan, np.inf, 1]]], np.float32)
    got = apply(run, kernel.launch_argsort, x, 1, 6, shape=(1, 6), dtype=np.int32)
    assert got.tolist() == routing.argsort_reference(x).tolist() == [[[2, 1, 5, 4, 0, 3]]]
    got = apply(run, kernel.launch_softmax, x, 1, 6, shape=(1, 6), dtype=np.float32)
    assert np.isnan(got).all()


@pytest.mark.parametrize("bad", [-1, 5])
def test_an_index_outside_is_refused(run: Any, bad: int) -> None:
    x, index = normal(1, 1, 5), np.array([[[2, bad]]], np.int32)
    how: dict[str, Any] = {"shape": (1, 2), "dtype": np.float32, "index_stride": 2, "threads": (1,)}
    with pytest.raises(KernelError, match="take_along"):
        apply(run, kernel.launch_take_along, x, index, 1, 5, 2, **how)
