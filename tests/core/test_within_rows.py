"""What a Program knows before it runs: constants, and elements that change places inside rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from device.needs import needs_compiler
from nanocupy.core import fast
from nanocupy.core.recorder.graph import topological
from nanocupy.core.recorder.packed import LINEAR
from nanocupy.core.recorder.program import Program
from nanocupy.core.recorder.within_rows import fold_constants, within_rows
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import Rows

X = np.random.default_rng(0).standard_normal((5, 2, 3, 4)).astype(np.float32)
VECTOR = np.linspace(-1, 1, 4, dtype=np.float32)
MATRIX = np.random.default_rng(1).standard_normal((8, 24)).astype(np.float32)


def devices() -> list[Any]:
    from nanocupy.device.emulated import EmulatedDevice

    return [
        pytest.param(lambda: CpuDevice(2), id="cpu"),
        pytest.param(EmulatedDevice, id="emulated", marks=needs_compiler),
    ]


on_devices = pytest.mark.parametrize("make", devices())
MOVES: dict[str, Callable[[mx.array], mx.array]] = {
    "slice inside": lambda x: x[:, :, 1:3],
    "slice of the last axis": lambda x: x[..., 1:3],
    "transpose": lambda x: x.transpose(0, 3, 1, 2),
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "concatenate": lambda x: mx.concatenate([x[..., 2:], x, x[..., :1]], axis=-1),
    "heads together": lambda x: mx.concatenate([x, x * 2], axis=1),
    "repeat": lambda x: mx.repeat(x, 2, axis=1),
    "by numbers": lambda x: mx.take(x, mx.array([2, 0, 3, 3, 1]), axis=-1),
    "heads by numbers": lambda x: mx.take(x, mx.array([1, 0, 1]), axis=1),
    "broadcast": lambda x: mx.broadcast_to(x[:, :1], (x.shape[0], 3, 3, 4)),
    "halves change places": lambda x: mx.concatenate(mx.split(x, 2, axis=-1)[::-1], axis=-1),
    "a part times a number": lambda x: x.at[..., :2].multiply(3.0),
    "a part and a number": lambda x: x.at[..., 1:].add(3.0),
}
NUMBERS: dict[str, Callable[[mx.array], mx.array]] = {
    "times a vector": lambda x: x * VECTOR,
    "and a vector": lambda x: VECTOR + x,
    "less a number": lambda x: x - 2,
    "by a number": lambda x: x / 3,
    "by a vector": lambda x: x / (VECTOR + 2),
    "a vector of each head": lambda x: x * mx.array(VECTOR[:3])[:, None],
    "relu": lambda x: mx.maximum(x, 0),
    "square": mx.square,
    "negative": lambda x: -x,
    "sigmoid": mx.sigmoid,
    "less rows": lambda x: x - x * 0.5,
    "a number by rows": lambda x: 1 / (mx.abs(x) + 1),
    "the larger rows": lambda x: mx.maximum(x, x * 2),
    "heads with heads": lambda x: x[:, :1] - x[:, :, :1],
    "erf": mx.erf,
    "at least a number": lambda x: mx.maximum(x, 0.5),
    "by rows": lambda x: x / (mx.square(x) + 1),
    "times one head": lambda x: x * x[:, :1],
    "by their sum": lambda x: x / (mx.square(x).sum(axis=-1, keepdims=True) + 1),
    "sum of heads": lambda x: x.sum(axis=1),
    "softmax": lambda x: mx.softmax(x, axis=-1),
    "the two largest": lambda x: mx.take_along_axis(
        x, mx.argpartition(-x, kth=1, axis=-1)[..., :2], axis=-1
    ),
    "flat and back": lambda x: (x.reshape(-1, 24) * 2).reshape(x.shape),
    "times a matrix": lambda x: x.reshape(-1, 24) @ mx.array(MATRIX).T,
    "made of constants": lambda x: x * (mx.array(VECTOR, mx.bfloat16).astype(mx.float32) + 1),
}


def in_a_program(make: Any, function: Callable[[mx.array], mx.array]) -> np.ndarray:
    """On five rows of at most seven."""
    device = make()
    rows = Rows(7, device.asarray(np.array([5], np.int64)))
    buffer = device.asarray(np.concatenate([X, np.full_like(X[:2], np.nan)]))
    program = Program([function(fast.static(buffer, (rows, 2, 3, 4)))], device)
    device.capture(program.launches()).run()
    return np.array(device.read(program.outputs[0]))[:5]


@on_devices
@pytest.mark.parametrize("name", MOVES)
def test_what_moves_is_as_numpy_has_it(make: Any, name: str) -> None:
    want = MOVES[name](mx.array(X)).numpy()
    assert np.array_equal(in_a_program(make, MOVES[name]), want)


@on_devices
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_and_vectors(make: Any, name: str) -> None:
    want = NUMBERS[name](mx.array(X)).numpy()
    np.testing.assert_allclose(in_a_program(make, NUMBERS[name]), want, rtol=5e-6, atol=3e-6)


@on_devices
def test_a_layer_norm(make: Any) -> None:
    def norm(x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x.reshape(x.shape[0], 24), mx.ones((24,)) * 2, None, 1e-5)

    want = norm(mx.array(X)).numpy()
    np.testing.assert_allclose(in_a_program(make, norm), want, rtol=1e-5, atol=1e-6)


STACK = np.random.default_rng(2).standard_normal((3, 16, 12)).astype(np.float32)


@on_devices
@pytest.mark.parametrize("shared", [True, False])
def test_a_linear_of_experts_that_rows_name(make: Any, shared: bool) -> None:
    """One vector for all that a row names, or one for each; and a row may name one twice."""
    chosen = 2
    index = np.array([[0, 2], [2, 1], [1, 1], [2, 0], [0, 0]], np.int32)
    x = X.reshape(5, 1, 2, 1, 12)[:, :, : 1 if shared else chosen]
    want = mx.gather_mm(mx.array(x), mx.array(STACK).swapaxes(1, 2), rhs_indices=index[:, None])
    device = make()
    packed = [fast.pack(device, [weight], "f32")[0] for weight in STACK]
    rows = Rows(7, device.asarray(np.array([5], np.int64)))
    buffer = device.asarray(np.concatenate([x, x[:2] * np.nan]))
    wide = device.asarray(np.pad(index, [(0, 2), (1, 1)], constant_values=1))
    named = fast.static(wide, (rows, 1, 4))[..., 1:3]
    stack = fast.packed_stack(packed).swapaxes(1, 2)
    out = mx.gather_mm(fast.static(buffer, (rows, *x.shape[1:])), stack, rhs_indices=named)
    program = Program([out], device)
    device.capture(program.launches()).run()
    got = np.array(device.read(program.outputs[0]))[:5]
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-5)


def test_an_array_with_symbolic_rows_has_the_size_of_one() -> None:
    device = CpuDevice(1)
    rows = Rows(7, device.asarray(np.array([5], np.int64)))
    x = fast.static(device.empty((7, 1, 24), np.float32), (rows, 1, 24))
    assert x.size == 24 and x.reshape(-1, 24).shape[0] is rows


def test_only_what_never_changes_is_folded() -> None:
    """A layer's weight is; a buffer that somebody writes into between runs is not."""
    device = CpuDevice(1)
    buffers = [device.asarray(VECTOR.copy()) for _ in range(2)]
    weight, input = fast.static(buffers[0], fixed=True), fast.static(buffers[1])
    folded, kept = fold_constants([(weight + 1).node, (input + 1).node], device)
    assert folded.attrs["fixed"] and kept.op.name == "add"
    assert np.array_equal(folded.attrs["buffer"][:4], VECTOR + 1)


def test_positions_and_nothing_are_positions() -> None:
    device = CpuDevice(1)
    positions = fast.static(device.empty((4,), np.int32))
    (node,) = fold_constants([(mx.arange(1) + positions[..., None]).node], device)
    assert node.op.name == "reshape" and node.inputs[0] is positions.node


def test_a_packed_weight_is_a_matrix_to_multiply_with() -> None:
    device = CpuDevice(1)
    (weight,) = fast.pack(device, [np.ones((16, 32), np.float32)], "f32")
    x = fast.static(device.empty((4, 32), np.float32))
    matrix = fast.packed_matrix(weight)
    assert matrix.shape == (16, 32)
    (node,) = within_rows([(x @ matrix.T).node])
    assert LINEAR in {n.op for n in topological([node])} and node.shape == (4, 16)
    with pytest.raises(NotImplementedError, match="packed weight"):
        Program([x @ (matrix * 2).T], device)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.transpose(1, 0, 2, 3), "transpose"),
        (lambda x: mx.concatenate([x, x], axis=0), "concatenate"),
        (lambda x: x[0] * x, "slice"),
        (lambda x: x @ mx.array(MATRIX[:, :4]).T, "linear"),
        (lambda x: mx.softmax(x, axis=1), "softmax"),
        (lambda x: mx.sum(x, axis=(1, 2)), "sum"),
    ],
)
def test_what_is_not_known_before_is_refused(function: Any, said: str) -> None:
    with pytest.raises(NotImplementedError, match=said):
        in_a_program(lambda: CpuDevice(1), function)
