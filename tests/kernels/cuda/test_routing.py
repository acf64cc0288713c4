"""softmax, argsort, take_along, sum_axis on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from nanocupy.device.protocols import Rows
from nanocupy.kernels import routing
from nanocupy.kernels.routing import cuda as kernel

POISON = 7
OPS: dict[str, Any] = {
    "softmax": (kernel.launch_softmax, routing.softmax_reference, np.float32),
    "argsort": (kernel.launch_argsort, routing.argsort_reference, np.int32),
}


def apply(
    cuda: Any, launch: Any, x: np.ndarray, *more: Any, shape: Any, dtype: Any, **how: Any
) -> Any:
    """The launch on x [rows, ...], rows of which have three elements more."""
    count = len(x)
    wide = np.pad(x.reshape(count, int(np.prod(x.shape[1:]))), [(0, 1), (0, 3)])

    def build(device: Any) -> Any:
        out = device.asarray(np.full((count + 1, *shape), POISON, dtype))
        rows = Rows(count + 1, device.asarray(np.array([count])))
        arrays = [device.asarray(a) for a in (wide, *(m for m in more if not isinstance(m, int)))]
        numbers = [m for m in more if isinstance(m, int)]
        place = {"x_stride": wide.shape[1]} | how
        return [launch(device, out, *arrays, rows, *numbers, **place)], [out]

    (out,) = cuda(build)
    assert (out[count:] == POISON).all()
    return out[:count]


def normal(*shape: int) -> np.ndarray:
    """Numbers of which some are equal."""
    return (np.random.default_rng(0).integers(-8, 8, shape) / 4).astype(np.float32)


@examples(8)
@example(rows=2, vectors=3, size=40)
@given(rows=st.integers(0, 3), vectors=st.integers(1, 3), size=st.integers(1, 70))
def test_agrees_with_numpy(cuda: Any, rows: int, vectors: int, size: int) -> None:
    x = normal(rows, vectors, size)
    for launch, reference, dtype in OPS.values():
        got = apply(cuda, launch, x, vectors, size, shape=(vectors, size), dtype=dtype)
        if rows:
            np.testing.assert_allclose(got, reference(x), rtol=3e-6)
    index = np.random.default_rng(1).integers(0, size, (rows + 1, vectors, 2)).astype(np.int32)
    how: dict[str, Any] = {"shape": (vectors, 2), "dtype": np.float32, "index_stride": 2 * vectors}
    got = apply(cuda, kernel.launch_take_along, x, index, vectors, size, 2, **how)
    np.testing.assert_array_equal(got, routing.take_along_reference(x, index[:rows]))
    y = normal(rows, vectors, 3, size)
    how = {"shape": (vectors, size), "dtype": np.float32}
    got = apply(cuda, kernel.launch_sum, y, vectors, 3, size, **how)
    np.testing.assert_allclose(got, routing.sum_axis_reference(y), rtol=1e-6, atol=1e-6)


def test_nan_comes_last(cuda: Any) -> None:
    x = np.array([[[np.nan, 1, -np.inf, np.nan, np.inf, 1]]], np.float32)
    got = apply(cuda, kernel.launch_argsort, x, 1, 6, shape=(1, 6), dtype=np.int32)
    assert got.tolist() == routing.argsort_reference(x).tolist() == [[[2, 1, 5, 4, 0, 3]]]


@pytest.mark.parametrize("bad", [-1, 1 << 20])
def test_an_index_outside_is_nan(cuda: Any, bad: int) -> None:
    x, index = normal(1, 1, 5), np.array([[[2, bad]], [[0, 0]]], np.int32)
    how: dict[str, Any] = {"shape": (1, 2), "dtype": np.float32, "index_stride": 2}
    got = apply(cuda, kernel.launch_take_along, x, index, 1, 5, 2, **how)
    assert got[0, 0, 0] == x[0, 0, 2] and np.isnan(got[0, 0, 1])
