"""add, mul, silu, gelu, scale, silu_mul, gelu_mul, cast, add_bias and take_rows on CUDA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from nanocupy.device.protocols import Rows
from nanocupy.kernels import elementwise, launches_of, silu_mul, take_rows

CUDA = launches_of("cuda")

gelu_mul = partial(CUDA.silu_mul.launch, activation="gelu")


def unary(name: str) -> Any:
    return lambda device, out, *how, **place: CUDA.elementwise.launch_unary(
        device, name, out, *how, **place
    )


def binary(name: str) -> Any:
    return lambda device, out, *how, **place: CUDA.elementwise.launch_binary(
        device, name, out, *how, **place
    )


def scaled(device: Any, out: Any, x: Any, *how: Any, **place: Any) -> Any:
    return CUDA.elementwise.launch_scale(device, out, x, -0.3, *how, **place)


OPS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...]]] = {
    "add": (binary("add"), np.add, ("x_stride", "y_stride")),
    "mul": (binary("mul"), np.multiply, ("x_stride", "y_stride")),
    **{
        name: (unary(name), getattr(elementwise, f"{name}_reference"), ("x_stride",))
        for name in elementwise.UNARY
    },
    "scale": (scaled, lambda x: x * np.float32(-0.3), ("x_stride",)),
    "silu_mul": (CUDA.silu_mul.launch, silu_mul.reference, ("gate_stride", "up_stride")),
    "gelu_mul": (
        gelu_mul,
        partial(silu_mul.reference, activation="gelu"),
        ("gate_stride", "up_stride"),
    ),
    "cast": (CUDA.cast.launch, lambda x: x, ("x_stride",)),
}
WIDTHS = st.integers(1, 40) | st.sampled_from([1024, 1028, 2051])
POISON = 7.0
EDGES = np.array([0, -0.0, 1e-38, 87, -87, 88.7, -104, 1e38, -3e38, np.inf, np.nan], np.float32)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 4).astype(np.float32)


def apply(
    cuda: Any, launch: Any, *inputs: np.ndarray, width: int, dtype: Any = np.float32, **how: int
) -> np.ndarray:
    """The launch on the first `width` elements of each row of the inputs."""
    count = len(inputs[0])

    def build(device: Any) -> Any:
        out = device.asarray(np.full((count + 1, width), POISON, dtype))
        rows = Rows(count + 1, device.asarray(np.array([count])))
        arrays = [device.asarray(x) for x in inputs]
        return [launch(device, out, *arrays, rows, width, **how)], [out]

    (out,) = cuda(build)
    assert (out[count:] == POISON).all()
    return np.asarray(out[:count])


@pytest.mark.parametrize("op", sorted(OPS))
@examples(5)
@example(rows=3, width=21, gaps=(1, 2))
@given(rows=st.integers(0, 4), width=WIDTHS, gaps=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_agrees_with_numpy(cuda: Any, op: str, rows: int, width: int, gaps: Any) -> None:
    launch, reference, strides = OPS[op]
    how = {name: width + gap for name, gap in zip(strides, gaps, strict=False)}
    inputs = [normal(rows, stride, seed=i) for i, stride in enumerate(how.values())]
    got = apply(cuda, launch, *inputs, width=width, **how)
    want = reference(*(x[:, :width] for x in inputs))
    rough = {"silu": 2e-6, "gelu": 1e-5}  # exp of a number that is itself rounded
    np.testing.assert_allclose(got, want, rtol=rough.get(op.removesuffix("_mul"), 0), atol=0)


@pytest.mark.parametrize("op", sorted(elementwise.UNARY))
def test_at_the_edges(cuda: Any, op: str) -> None:
    launch, reference, _ = OPS[op]
    got = apply(cuda, launch, EDGES[None], width=len(EDGES))[0]
    with np.errstate(invalid="ignore", over="ignore"):
        want = reference(EDGES)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-36)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("width", [64, 39])
@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_outputs_are_rounded_once(cuda: Any, dtype: Any, width: int, activation: str) -> None:
    """silu_mul is silu then mul, to the bit, then rounded."""
    gate, up = normal(3, width), normal(3, width, seed=1)
    want = apply(cuda, OPS[activation][0], gate, width=width)
    want = apply(cuda, OPS["mul"][0], want, up, width=width)
    launch = OPS[f"{activation}_mul"][0]
    assert apply(cuda, launch, gate, up, width=width).tobytes() == want.tobytes()
    got = apply(cuda, launch, gate, up, width=width, dtype=dtype)
    assert got.tobytes() == want.astype(dtype).tobytes()
    got = apply(cuda, CUDA.cast.launch, gate, width=width, dtype=dtype)
    assert got.tobytes() == gate.astype(dtype).tobytes()


def test_gate_and_up_in_one_buffer(cuda: Any) -> None:
    both = normal(5, 98)
    gate, up = (np.ascontiguousarray(part) for part in np.split(both, 2, axis=1))

    def build(device: Any) -> Any:
        buffer, out = device.asarray(both), device.empty((5, 49), np.float32)
        place = {"gate_stride": 98, "up_stride": 98}
        rows = Rows(5, device.asarray(np.array([5])))
        return [
            CUDA.silu_mul.launch(device, out, buffer, buffer.reshape(-1)[49:], rows, 49, **place)
        ], [out]

    assert (
        cuda(build)[0].tobytes() == apply(cuda, CUDA.silu_mul.launch, gate, up, width=49).tobytes()
    )


@examples(10)
@given(rows=st.integers(0, 4), width=WIDTHS, gap=st.integers(0, 5))
def test_add_bias(cuda: Any, rows: int, width: int, gap: int) -> None:
    x, bias = normal(rows + 1, width + gap), normal(width, seed=1)

    def build(device: Any) -> Any:
        out, count = device.asarray(x), Rows(rows + 1, device.asarray(np.array([rows])))
        return [CUDA.linear.add_bias(out, device.asarray(bias), count, width, width + gap)], [out]

    want = x.copy()
    want[:rows, :width] += bias
    assert cuda(build)[0].tobytes() == want.tobytes()


def test_in_place(cuda: Any) -> None:
    x, y = normal(3, 37), normal(3, 37, seed=1)

    def build(device: Any) -> Any:
        out, other = device.asarray(x), device.asarray(y)
        rows = Rows(3, device.asarray(np.array([3])))
        return [CUDA.elementwise.launch_binary(device, "add", out, other, out, rows, 37)], [out]

    assert cuda(build)[0].tobytes() == (x + y).tobytes()


# ---- take_rows


def take(cuda: Any, x: np.ndarray, index: Any, dtype: Any = np.float32) -> np.ndarray:
    count = len(index)

    def build(device: Any) -> Any:
        out = device.asarray(np.full((count + 1, x.shape[1]), POISON, dtype))
        numbers = device.asarray(np.array([*index, 0], np.int32))
        rows = Rows(count + 1, device.asarray(np.array([count])))
        return [CUDA.take_rows.launch(device, out, device.asarray(x), numbers, rows)], [out]

    (out,) = cuda(build)
    assert (out[count:] == POISON).all()
    return np.asarray(out[:count])


@examples(10)
@given(rows=st.integers(1, 6), width=WIDTHS, index=st.lists(st.integers(0, 5), max_size=6))
def test_take_rows(cuda: Any, rows: int, width: int, index: list[int]) -> None:
    x, numbers = normal(rows, width), np.array(index, np.int32) % rows
    np.testing.assert_array_equal(take(cuda, x, numbers), take_rows.reference(x, numbers))


@pytest.mark.parametrize("width", [64, 37])
def test_take_rows_of_another_dtype(cuda: Any, width: int) -> None:
    x = normal(3, width).astype(ml_dtypes.bfloat16)
    assert take(cuda, x, [2, 0]).tobytes() == x[[2, 0]].astype(np.float32).tobytes()


@pytest.mark.parametrize("bad", [-1, 3, 1 << 30, -(1 << 31)])
def test_an_index_outside_ends_its_row_alone(cuda: Any, bad: int) -> None:
    x = normal(3, 18)
    got = take(cuda, x, [1, bad, 2])
    assert np.isnan(got[1]).all() and got[[0, 2]].tobytes() == x[1:].tobytes()
