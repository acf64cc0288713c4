"""take_columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocupy.device.base import KernelError, fixed_rows
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.kernels import take_columns


def take(run: Any, x: np.ndarray, index: np.ndarray, **how: Any) -> np.ndarray:
    def build(device: CpuDevice) -> Any:
        out = device.empty((len(x) + 1, len(index)), np.float32)
        arrays = (device.asarray(x), device.asarray(index), fixed_rows(device, len(x)))
        return [take_columns.launch(device, out, *arrays, x_stride=x.shape[1])], [out]

    out: np.ndarray = run(build, **how)[0]
    assert not out[-1].any()
    return out[:-1]


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(0, 5),
    width=st.integers(1, 70),
    apart=st.integers(0, 9),
    seed=st.integers(0, 9),
)
def test_agrees_with_numpy(run: Any, rows: int, width: int, apart: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width + apart)).astype(np.float32)
    index = rng.permutation(width).astype(np.int32)
    want = take_columns.reference(x[:, :width], index)
    np.testing.assert_array_equal(take(run, x, index), want)


@pytest.mark.parametrize("bad", [-1, 3])
def test_an_index_outside_is_refused(run: Any, bad: int) -> None:
    x = np.ones((2, 3), np.float32)
    with pytest.raises(KernelError, match="take_columns"):
        take(run, x, np.array([0, bad, 1], np.int32), threads=(1,))
