"""add, mul, silu, gelu, scale, and silu or gelu times another."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import fixed_rows
from nanocupy.kernels import elementwise, launches_of, silu_mul

CPU = launches_of("cpu")

EDGES = np.array(
    [0, -0.0, 1e-45, 87, -87, -87.4, 88.7, -104, 1e38, -3e38, np.inf, -np.inf, np.nan], np.float32
)


def unary(name: str) -> Any:
    """As the launches of two inputs are called."""
    return lambda device, out, *how, **place: CPU.elementwise.launch_unary(
        device, name, out, *how, **place
    )


def binary(name: str) -> Any:
    return lambda device, out, *how, **place: CPU.elementwise.launch_binary(
        device, name, out, *how, **place
    )


OPS = {
    "add": (binary("add"), np.add),
    "mul": (binary("mul"), np.multiply),
    "silu_mul": (CPU.silu_mul.launch, silu_mul.reference),
    "gelu_mul": (
        partial(CPU.silu_mul.launch, activation="gelu"),
        partial(silu_mul.reference, activation="gelu"),
    ),
}
UNARY = {
    name: (unary(name), getattr(elementwise, f"{name}_reference")) for name in elementwise.UNARY
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
    close = {"rtol": 2e-6, "atol": 1e-36} if op.endswith("lu_mul") else {"rtol": 0}
    np.testing.assert_allclose(apply(run, launch, x, y), reference(x, y), **close)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 5), width=st.integers(1, 70), op=st.sampled_from(sorted(UNARY)))
def test_one_input(run: Any, rows: int, width: int, op: str) -> None:
    launch, reference = UNARY[op]
    x = normal(rows, width)
    np.testing.assert_allclose(apply(run, launch, x), reference(x), rtol=5e-6, atol=1e-36)


@settings(max_examples=10, deadline=None)
@given(rows=st.integers(0, 5), width=st.integers(1, 70), factor=st.floats(-99, 99, width=32))
def test_times_a_number(run: Any, rows: int, width: int, factor: float) -> None:
    def launch(device: Any, out: Any, x: Any, *place: Any, **strides: Any) -> Any:
        return CPU.elementwise.launch_scale(device, out, x, factor, *place, **strides)

    x = normal(rows, width)
    want = x * np.float32(factor)
    assert apply(run, launch, x).tobytes() == want.tobytes()
    wide = normal(rows, width + 9)
    close = np.ascontiguousarray(wide[:, :width])
    got = apply(run, launch, wide, width=width, x_stride=width + 9)
    assert got.tobytes() == apply(run, launch, close).tobytes()


def test_gelu_is_the_tanh_formula() -> None:
    x = np.linspace(-6, 6, 999)
    want = 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    got = elementwise.gelu_reference(x.astype(np.float32))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_silu_and_gelu_at_the_edges(run: Any, name: str) -> None:
    got = apply(run, unary(name), EDGES[None])[0]
    with np.errstate(all="ignore"):
        want = getattr(elementwise, f"{name}_reference")(EDGES)  # NaN of -infinity, as -inf * 0 is
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-36)


@pytest.mark.parametrize("op", ["silu", "gelu"])
@pytest.mark.parametrize("width", [64, 37])
def test_a_fused_product_is_the_two_in_turn(run: Any, width: int, op: str) -> None:
    gate, up = normal(6, width), normal(6, width, seed=1)
    want = apply(run, UNARY[op][0], gate)
    want = apply(run, OPS["mul"][0], want, up)
    assert apply(run, OPS[f"{op}_mul"][0], gate, up).tobytes() == want.tobytes()


def test_gate_and_up_in_one_buffer(run: Any) -> None:
    both = normal(5, 96)
    gate, up = (np.ascontiguousarray(part) for part in np.split(both, 2, axis=1))

    def build(device: CpuDevice) -> Any:
        buffer, out = device.asarray(both), device.empty((5, 48), np.float32)
        place = {"gate_stride": 96, "up_stride": 96}
        rows = fixed_rows(device, 5)
        return [
            CPU.silu_mul.launch(device, out, buffer, buffer.reshape(-1)[48:], rows, 48, **place)
        ], [out]

    assert run(build)[0].tobytes() == apply(run, CPU.silu_mul.launch, gate, up).tobytes()


@pytest.mark.parametrize("op", sorted(OPS))
def test_a_row_does_not_depend_on_its_company(run: Any, op: str) -> None:
    launch, _ = OPS[op]
    x, y = normal(5, 37), normal(5, 37, seed=1)
    alone = [apply(run, launch, x[i : i + 1], y[i : i + 1]) for i in range(5)]
    assert apply(run, launch, x, y).tobytes() == np.concatenate(alone).tobytes()


@pytest.mark.parametrize("op", [*elementwise.BINARY, *UNARY])
def test_rows_may_lie_apart(run: Any, op: str) -> None:
    wide = [normal(5, 60, seed=s) for s in range(1 if op in UNARY else 2)]
    close = [np.ascontiguousarray(x[:, :37]) for x in wide]
    launch = unary(op) if op in UNARY else OPS[op][0]
    strides = {f"{name}_stride": 60 for name in ("x", "y")[: len(wide)]}
    apart = apply(run, launch, *wide, width=37, **strides)
    assert apart.tobytes() == apply(run, launch, *close).tobytes()
