"""rope."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import KernelError, fixed_rows
from nanocupy.kernels import rope
from nanocupy.kernels.rope import cpu


def make(rows: int, heads: int, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, heads, head_dim)).astype(np.float32)
    return x, rng.integers(0, 40, rows).astype(np.int32)


def turn(
    run: Any, x: np.ndarray, positions: np.ndarray, table: np.ndarray, **how: Any
) -> np.ndarray:
    threads = how.pop("threads", (1, 2, 3))

    def build(device: CpuDevice) -> Any:
        out = device.empty((len(x) + 1, *x.shape[1:]), np.float32)
        arrays = [device.asarray(v) for v in (x, positions, table)]
        shape = {"heads": x.shape[1], "head_dim": x.shape[2]}
        rows = fixed_rows(device, len(x))
        return [cpu.launch(device, out, *arrays, rows, **shape, **how)], [out]

    out: np.ndarray = run(build, threads=threads)[0]
    assert not out[-1].any()
    return out[:-1]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 5),
    heads=st.integers(1, 3),
    half=st.integers(1, 40),
    still=st.integers(0, 20),
    traditional=st.booleans(),
)
def test_equals_numpy(
    run: Any, rows: int, heads: int, half: int, still: int, traditional: bool
) -> None:
    x, positions = make(rows, heads, 2 * half + still)
    table = rope.table(rope.frequencies(2 * half, 1e4), 40)
    got = turn(run, x, positions, table, traditional=traditional)
    want = rope.reference(x, positions, table, traditional)
    assert got.tobytes() == want.tobytes()


def test_turning_keeps_lengths_and_relative_angles(run: Any) -> None:
    x, _ = make(1, 1, 64)
    x = np.repeat(x, 3, axis=0)
    table = rope.table(rope.frequencies(64, 1e4), 40)
    a = turn(run, x, np.array([0, 7, 30], np.int32), table)[:, 0]
    b = turn(run, x, np.array([5, 12, 35], np.int32), table)[:, 0]
    assert a[0].tobytes() == x[0, 0].tobytes()
    np.testing.assert_allclose((a * a).sum(1), (b * b).sum(1), rtol=1e-5)
    np.testing.assert_allclose((a * b).sum(1), (a * b).sum(1)[0], rtol=1e-5)


def test_in_place_inside_a_fused_buffer(run: Any) -> None:
    x, positions = make(5, 6, 64)
    table = rope.table(rope.frequencies(64, 1e4), 40)

    def build(device: CpuDevice) -> Any:
        buffer = device.asarray(x)
        arrays = (*map(device.asarray, (positions, table)), fixed_rows(device, 5))
        heads, place = buffer.reshape(-1)[64:], {"x_stride": 6 * 64, "out_stride": 6 * 64}
        turn = cpu.launch(device, heads, heads, *arrays, heads=4, head_dim=64, **place)
        return [turn], [buffer]

    want = x.copy()
    want[:, 1:5] = rope.reference(x[:, 1:5], positions, table)
    assert run(build)[0].tobytes() == want.tobytes()


@pytest.mark.parametrize("bad", [-1, 40])
def test_a_position_outside_the_table_is_refused(run: Any, bad: int) -> None:
    x, positions = make(2, 1, 16)
    positions[1] = bad
    with pytest.raises(KernelError, match="rope"):
        turn(run, x, positions, rope.table(rope.frequencies(16, 1e4), 40), threads=(1,))


def test_a_table_that_does_not_fit_is_refused(run: Any) -> None:
    x, positions = make(2, 1, 16)
    with pytest.raises(ValueError, match=r"\[rope\] table of 32 dims for heads of 16"):
        turn(run, x, positions, rope.table(rope.frequencies(32, 1e4), 40))
