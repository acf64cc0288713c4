"""layer_norm and columns on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from nanocupy.device.protocols import Rows
from nanocupy.kernels import columns, launches_of, layer_norm

CUDA = launches_of("cuda")

POISON = 7.0


def norm(
    cuda: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, gap: int = 0
) -> np.ndarray:
    count, size = x.shape
    wide = np.full((count + 1, size + gap), np.nan, np.float32)
    wide[:count, :size] = x

    def build(device: Any) -> Any:
        out = device.asarray(np.full((count + 1, size), POISON, np.float32))
        rows = Rows(count + 1, device.asarray(np.array([count])))
        arrays = [device.asarray(a) for a in (wide, weight, bias)]
        how = {"x_stride": size + gap}
        return [CUDA.layer_norm.launch(device, out, *arrays, 1e-5, rows, size, **how)], [out]

    (out,) = cuda(build)
    assert (out[count:] == POISON).all()
    return np.asarray(out[:count])


@pytest.mark.parametrize("size", [1, 7, 64, 130, 1028, 4100])
@examples(4)
@given(st.integers(0, 3), st.integers(0, 5), st.floats(-50, 50, width=32))
def test_agrees_with_numpy(cuda: Any, size: int, rows: int, gap: int, far: float) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal((rows, size)).astype(np.float32) + np.float32(far)
    weight, bias = rng.standard_normal((2, size)).astype(np.float32)
    want = layer_norm.reference(x.astype(np.float64), weight, bias, 1e-5)
    got = norm(cuda, x, weight, bias, gap)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-4)


def test_several_warps_agree_on_the_mean(cuda: Any) -> None:
    """One row of four warps, far from zero."""
    x = np.random.default_rng(0).standard_normal((2, 130)).astype(np.float32) + 100
    ones, zeros = np.ones(130, np.float32), np.zeros(130, np.float32)
    want = layer_norm.reference(x.astype(np.float64), ones, zeros, 1e-5)
    np.testing.assert_allclose(norm(cuda, x, ones, zeros, 3), want, rtol=1e-4, atol=2e-4)


@examples(8)
@given(st.integers(0, 3), st.integers(1, 300), st.integers(0, 99))
def test_columns_go_where_they_should(cuda: Any, rows: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 1000, (rows + 1, size)).astype(np.int32)
    to = rng.permutation(size)[: rng.integers(1, size + 1)].astype(np.int32)
    source = rng.integers(0, size, len(to)).astype(np.int32)

    def build(device: Any) -> Any:
        out = device.asarray(np.full((rows + 1, size + 2), -1, np.int32))
        arrays = [device.asarray(a) for a in (x, source, to)]
        count = Rows(rows + 1, device.asarray(np.array([rows])))
        place = {"x_stride": size, "out_stride": size + 2}
        return [CUDA.columns.launch(device, out, *arrays, count, **place)], [out]

    (out,) = cuda(build)
    want = columns.reference(np.full((rows, size + 2), -1, np.int32), x[:rows], source, to)
    assert np.array_equal(out[:rows], want) and (out[rows] == -1).all()


def test_columns_past_the_last_are_let_be(cuda: Any) -> None:
    """A block has more threads than there are columns: the others touch nothing."""
    test = test_columns_go_where_they_should.hypothesis.inner_test  # type: ignore[attr-defined]
    test(cuda, 2, 130, 5)
