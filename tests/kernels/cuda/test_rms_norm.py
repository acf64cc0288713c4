"""rms_norm and add_rms_norm on CUDA."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from nanocupy.device.protocols import Rows
from nanocupy.kernels import rms_norm
from nanocupy.kernels.rms_norm import cuda as kernel

SIZES = [1, 3, 37, 64, 127, 128, 576, 1030, 5001]  # of every number of threads, odd ones too
POISON = 7.0


def make(rows: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, r = (rng.standard_normal((rows, size)).astype(np.float32) for _ in range(2))
    return x, r, rng.standard_normal(size).astype(np.float32)


def norm(
    cuda: Any,
    x: np.ndarray,
    weight: np.ndarray,
    dtype: Any = np.float32,
    start: int = 0,
    **place: int,
) -> np.ndarray:
    """The kernel on x [rows, width] from `start` on, `vectors` vectors of len(weight) a row."""
    count, width = len(x), place.get("vectors", 1) * len(weight)

    def build(device: Any) -> Any:
        out = device.asarray(np.full((count + 1, width), POISON, dtype))
        rows = Rows(count + 1, device.asarray(np.array([count])))
        arrays = (device.asarray(x).reshape(-1)[start:], device.asarray(weight))
        return [kernel.launch(device, out, *arrays, 1e-5, rows, **place)], [out]

    (out,) = cuda(build)
    assert (out[count:] == POISON).all()
    return np.asarray(out[:count])


@examples(15)
@given(rows=st.integers(0, 4), size=st.sampled_from(SIZES), seed=st.integers(0, 9))
@example(rows=3, size=127, seed=0)
def test_agrees_with_numpy(cuda: Any, rows: int, size: int, seed: int) -> None:
    x, _, weight = make(rows, size, seed)
    want = rms_norm.reference(x, weight, 1e-5)
    np.testing.assert_allclose(norm(cuda, x, weight), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_is_rounded_once(cuda: Any, dtype: Any) -> None:
    x, _, weight = make(3, 100)
    got, exact = norm(cuda, x, weight, dtype), norm(cuda, x, weight)
    assert got.dtype == dtype and got.tobytes() == exact.astype(dtype).tobytes()


@pytest.mark.parametrize("size", [64, 576])
def test_a_row_does_not_depend_on_its_company_or_place(cuda: Any, size: int) -> None:
    """At any address: elements are added in one order, whether read at once or not."""
    x, _, weight = make(7, size)
    alone = [norm(cuda, x[i : i + 1], weight) for i in range(7)]
    together = norm(cuda, x, weight)
    assert together.tobytes() == np.concatenate(alone).tobytes()
    shifted = np.concatenate([np.full((7, 1), np.nan, np.float32), x], 1)
    place = {"start": 1, "x_stride": size + 1}
    assert norm(cuda, shifted, weight, **place).tobytes() == together.tobytes()


def test_heads_in_place_inside_a_wider_buffer(cuda: Any) -> None:
    x, weight = make(5, 320)[0], make(1, 64)[2]
    place = {"x_stride": 320, "out_stride": 320}

    def build(device: Any) -> Any:
        buffer, rows = device.asarray(x), Rows(5, device.asarray(np.array([4])))
        heads = buffer.reshape(-1)[128:]
        arrays = (heads, heads, device.asarray(weight))
        return [kernel.launch(device, *arrays, 1e-5, rows, vectors=2, **place)], [buffer]

    want = x.copy()
    heads = x[:4, 128:256].reshape(8, 64)
    want[:4, 128:256] = norm(cuda, heads, weight).reshape(4, 128)
    assert cuda(build)[0].tobytes() == want.tobytes()


@pytest.mark.parametrize(("size", "dtype"), [(576, np.float32), (5001, ml_dtypes.bfloat16)])
@pytest.mark.parametrize("in_place", [False, True])
def test_add_rms_norm_is_add_then_rms_norm(
    cuda: Any, size: int, dtype: Any, in_place: bool
) -> None:
    x, r, weight = make(3, size)

    def build(device: Any) -> Any:
        inputs = [device.asarray(v) for v in (x, r)]
        h = inputs[1] if in_place else device.asarray(np.full_like(x, POISON))
        out = device.asarray(np.full((3, size), POISON, dtype))
        rows = Rows(3, device.asarray(np.array([2])))
        arrays = (*inputs, device.asarray(weight))
        return [kernel.launch_add(device, h, out, *arrays, 1e-5, rows)], [h, out]

    h, out = cuda(build)
    assert h[:2].tobytes() == (x + r)[:2].tobytes()
    assert out[:2].tobytes() == norm(cuda, (x + r)[:2], weight, dtype).tobytes()
    assert (out[2] == POISON).all() and (h[2] == (r[2] if in_place else POISON)).all()


def test_nan_stays_in_its_row(cuda: Any) -> None:
    x, _, weight = make(3, 64)
    x[1, 5] = np.nan
    got = norm(cuda, x, weight)
    assert np.isnan(got[1]).all() and np.isfinite(got[[0, 2]]).all()
