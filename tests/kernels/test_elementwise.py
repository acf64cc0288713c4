"""add, mul, silu and silu_mul."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocupy.device.base import fixed_rows
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.kernels import elementwise, silu_mul

EDGES = np.array(
    [0, -0.0, 1e-45, 87, -87, -87.4, 88.7, -104, 1e38, -3e38, np.inf, -np.inf, np.nan], np.float32
)
OPS = {
    "add": (elementwise.launch_add, elementwise.add_reference),
    "mul": (elementwise.launch_mul, elementwise.mul_reference),
    "silu_mul": (silu_mul.launch, silu_mul.reference),
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 4).astype(np.float32)


def apply(run: Any, launch: Any, *inputs: np.ndarray, **place: int) -> np.ndarray:
    """The launch on inputs [rows, width]."""
    count, width = inputs[0].shape
    width = place.pop("width", width)

    def build(device: CpuDevice) -> Any:
        out, rows = device.empty((count + 1, width), np.float32), fixed_rows(device, count)
        arrays = [device.asarray(x) for x in inputs]
        return [launch(device, out, *arrays, rows, width, **place)], [out]

    out: np.ndarray = run(build)[0]
    assert not out[-1].any()  # the row past the end is left alone
    return out[:-1]


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 5), width=st.integers(1, 70), op=st.sampled_from(sorted(OPS)))
def test_two_inputs(run: Any, rows: int, width: int, op: str) -> None:
    launch, reference = OPS[op]
    x, y = normal(rows, width), normal(rows, width, seed=1)
    tolerance = 2e-6 if op == "silu_mul" else 0
    np.testing.assert_allclose(apply(run, launch, x, y), reference(x, y), rtol=tolerance)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 5), width=st.integers(1, 70))
def test_silu(run: Any, rows: int, width: int) -> None:
    x = normal(rows, width)
    want = elementwise.silu_reference(x)
    np.testing.assert_allclose(apply(run, elementwise.launch_silu, x), want, rtol=2e-6)


def test_silu_at_the_edges(run: Any) -> None:
    got = apply(run, elementwise.launch_silu, EDGES[None])[0]
    with np.errstate(invalid="ignore"):
        want = np.where(np.isneginf(EDGES), EDGES, elementwise.silu_reference(EDGES))
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-36)


@pytest.mark.parametrize("width", [64, 37])
def test_silu_mul_is_silu_then_mul(run: Any, width: int) -> None:
    gate, up = normal(6, width), normal(6, width, seed=1)
    want = apply(run, elementwise.launch_silu, gate)
    want = apply(run, elementwise.launch_mul, want, up)
    assert apply(run, silu_mul.launch, gate, up).tobytes() == want.tobytes()


def test_gate_and_up_in_one_buffer(run: Any) -> None:
    both = normal(5, 96)
    gate, up = (np.ascontiguousarray(part) for part in np.split(both, 2, axis=1))

    def build(device: CpuDevice) -> Any:
        buffer, out = device.asarray(both), device.empty((5, 48), np.float32)
        place = {"gate_stride": 96, "up_stride": 96, "up_offset": 48}
        rows = fixed_rows(device, 5)
        return [silu_mul.launch(device, out, buffer, buffer, rows, 48, **place)], [out]

    assert run(build)[0].tobytes() == apply(run, silu_mul.launch, gate, up).tobytes()


@pytest.mark.parametrize("op", sorted(OPS))
def test_a_row_does_not_depend_on_its_company(run: Any, op: str) -> None:
    launch, _ = OPS[op]
    x, y = normal(5, 37), normal(5, 37, seed=1)
    alone = [apply(run, launch, x[i : i + 1], y[i : i + 1]) for i in range(5)]
    assert apply(run, launch, x, y).tobytes() == np.concatenate(alone).tobytes()


@pytest.mark.parametrize("op", ["add", "mul", "silu"])
def test_rows_may_lie_apart(run: Any, op: str) -> None:
    wide = [normal(5, 60, seed=s) for s in range(1 if op == "silu" else 2)]
    close = [np.ascontiguousarray(x[:, :37]) for x in wide]
    launch = getattr(elementwise, f"launch_{op}")
    strides = {f"{name}_stride": 60 for name in ("x", "y")[: len(wide)]}
    apart = apply(run, launch, *wide, width=37, **strides)
    assert apart.tobytes() == apply(run, launch, *close).tobytes()
