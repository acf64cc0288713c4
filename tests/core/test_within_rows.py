"""What a Program knows before it runs: constants, and elements that change places inside rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from device.needs import needs_compiler
from nanocupy.core import fast
from nanocupy.core.fast import LINEAR
from nanocupy.core.graph import topological
from nanocupy.core.program import Program
from nanocupy.core.within_rows import fold_constants, within_rows
from nanocupy.device.base import Rows
from nanocupy.device.cpu.device import CpuDevice

X = np.random.default_rng(0).standard_normal((5, 2, 3, 4)).astype(np.float32)
VECTOR = np.linspace(-1, 1, 4, dtype=np.float32)


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
    "erf": mx.erf,
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
    np.testing.assert_allclose(in_a_program(make, NUMBERS[name]), want, rtol=5e-6, atol=5e-7)


@on_devices
def test_a_layer_norm(make: Any) -> None:
    def norm(x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x.reshape(x.shape[0], 24), mx.ones((24,)) * 2, None, 1e-5)

    want = norm(mx.array(X)).numpy()
    np.testing.assert_allclose(in_a_program(make, norm), want, rtol=1e-5, atol=1e-6)


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
        (lambda x: x - x, "broadcasting"),
        (lambda x: 1 / x, "broadcasting"),
        (lambda x: mx.maximum(x, 1), "maximum"),
        (lambda x: x.transpose(1, 0, 2, 3), "transpose"),
        (lambda x: mx.concatenate([x, x], axis=0), "concatenate"),
        (lambda x: x * x[:, :1], "broadcasting"),
    ],
)
def test_what_is_not_known_before_is_refused(function: Any, said: str) -> None:
    with pytest.raises(NotImplementedError, match=said):
        in_a_program(lambda: CpuDevice(1), function)
