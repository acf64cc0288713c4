"""columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import fixed_rows
from nanocupy.kernels import columns, launches_of

CPU = launches_of("cpu")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_columns_go_where_they_should(
    run: Any, rows: int, x_size: int, out_size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, x_size)).astype(np.float32)
    to = rng.permutation(out_size)[: rng.integers(1, out_size + 1)].astype(np.int32)
    source = rng.integers(0, x_size, len(to)).astype(np.int32)

    def build(device: CpuDevice) -> Any:
        out = device.asarray(np.full((rows + 1, out_size), 7, np.float32))
        arrays = [device.asarray(a) for a in (x, source, to)]
        place = {"x_stride": x_size, "out_stride": out_size}
        return [CPU.columns.launch(device, out, *arrays, fixed_rows(device, rows), **place)], [out]

    (out,) = run(build)
    want = columns.reference(np.full((rows, out_size), 7, np.float32), x, source, to)
    assert np.array_equal(out[:rows], want) and (out[rows] == 7).all()
