"""take_rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import KernelError, fixed_rows
from nanocupy.kernels import launches_of, take_rows

CPU = launches_of("cpu")


def take(
    run: Any, x: np.ndarray, index: np.ndarray, dtype: Any = np.float32, **how: Any
) -> np.ndarray:
    def build(device: CpuDevice) -> Any:
        out = device.empty((len(index) + 1, x.shape[1]), dtype)
        arrays = (device.asarray(x), device.asarray(index), fixed_rows(device, len(index)))
        return [CPU.take_rows.launch(device, out, *arrays)], [out]

    out: np.ndarray = run(build, **how)[0]
    assert not out[-1].any()
    return out[:-1]


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 6), width=st.integers(1, 70), index=st.lists(st.integers(0, 5), max_size=9)
)
def test_agrees_with_numpy(run: Any, rows: int, width: int, index: list[int]) -> None:
    x = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
    numbers = np.array(index, np.int32) % rows
    want = take_rows.reference(x, numbers)
    np.testing.assert_array_equal(take(run, x, numbers), want)
    np.testing.assert_array_equal(take(run, x, numbers, bfloat16), want.astype(bfloat16))


@pytest.mark.parametrize("bad", [-1, 3])
def test_an_index_outside_is_refused(run: Any, bad: int) -> None:
    x = np.ones((3, 16), np.float32)
    with pytest.raises(KernelError, match="take_rows"):
        take(run, x, np.array([0, bad], np.int32), threads=(1,))
