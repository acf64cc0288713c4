"""What Python asks an array for: text, bytes, buffers, pickles, a namespace; beside MLX's own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from beside_mlx import ALL, both, ours
from nanocupy import nn


@pytest.mark.parametrize("spec", [".2f", "d", ">10", "e", "08.3f", "x", "text"])
@pytest.mark.parametrize("value", [1.5, 3, True, -2.25])
def test_format_specs(value: Any, spec: str) -> None:
    try:
        want = format(value, spec)
    except ValueError:  # where MLX falls down
        with pytest.raises(ValueError, match="format"):
            format(ours.array(value), spec)
    else:
        assert format(ours.array(value), spec) == want


def test_format_of_arrays() -> None:
    for call in (
        lambda mx: f"{mx.array(0.35487):.1f} {mx.arange(3)[0]:.2f} {mx.array(1.5)} {mx.array(3)}",
        lambda mx: f"{mx.array([1, 2])}",
        lambda mx: f"{mx.array([1, 2]):.2f}",
        lambda mx: f"{mx.array([1.5]):.2f}",
    ):
        both(lambda mx, of, call=call: call(mx))


@pytest.mark.parametrize("dtype", [*ALL, "float64"])
def test_pickles(dtype: str) -> None:
    x = (ours.arange(6).reshape(2, 3) % 2).astype(getattr(ours, dtype)).T
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        y = pickle.loads(pickle.dumps(x, protocol))
        assert y.dtype is x.dtype and y.shape == (3, 2) and y.tolist() == x.tolist()
    assert (y + 1).tolist() == (x + 1).tolist()
    assert pickle.loads(pickle.dumps({"x": [x]}))["x"][0].tolist() == x.tolist()
    for again in (copy.copy(x), copy.deepcopy(x)):
        again[0] = 1
        assert x.tolist() == y.tolist()
    assert pickle.loads(pickle.dumps(x.dtype)) is x.dtype


def test_modules_pickle() -> None:
    layer = nn.Linear(3, 2).update({"weight": ours.arange(6.0).reshape(2, 3)})
    again = pickle.loads(pickle.dumps(nn.Sequential(layer, nn.relu)))
    x = ours.array([[1.0, 2.0, 3.0]])
    assert again(x).tolist() == nn.relu(layer(x)).tolist()


def test_bytes_of_an_array() -> None:
    for make in (
        lambda mx: mx.array([1, 2], mx.uint8),
        lambda mx: mx.arange(6).reshape(2, 3).T,
        lambda mx: mx.array(1.5, mx.float16),
        lambda mx: mx.zeros((0,)),
    ):
        both(lambda mx, of, make=make: bytes(make(mx)))


def test_buffers() -> None:
    """`memoryview(x)` calls this from Python 3.12 on; before, no class of Python can have it."""
    x = ours.array([[1, 2], [3, 4]], ours.int16)
    view = ours.array.__buffer__(x, 0)
    assert (view.shape, view.strides, view.format) == ((2, 2), (4, 2), "h")
    assert ours.array.__buffer__(x.T, 0).strides == (2, 4)
    view[0, 0] = 7
    assert x[0, 0].item() == 7
    with pytest.raises(BufferError, match="bfloat16"):
        ours.array.__buffer__(ours.ones(2, ours.bfloat16), 0)
    if hasattr(type("", (), {"__buffer__": None}), "__release_buffer__"):
        assert memoryview(x).shape == (2, 2)


def test_dtypes_have_sizes() -> None:
    for name in ALL:
        both(lambda mx, of, name=name: getattr(mx, name).size)
        both(lambda mx, of, name=name: mx.ones(2, getattr(mx, name)).dtype.size)
    x = ours.ones((2, 3), ours.float16)
    assert x.dtype is ours.float16 and x.dtype == np.float16 and np.float16 == x.dtype
    assert {np.dtype(np.float16): 1}[x.dtype] == 1 and np.zeros(2, x.dtype).dtype == x.dtype
    assert x.dtype != ours.bfloat16 and x.dtype is not None and x.dtype != "text"
    assert isinstance(x.dtype, ours.Dtype) and isinstance(ours.int8, ours.Dtype)
    both(lambda mx, of: mx.finfo(mx.int32))
    both(lambda mx, of: mx.iinfo(mx.float32))
    both(lambda mx, of: mx.result_type())


def test_the_namespace_of_an_array() -> None:
    both(lambda mx, of: mx.array(1.0).__array_namespace__() is mx)
    both(lambda mx, of: mx.array(1.0).__array_namespace__(api_version="2023.12"))
    space = ours.ones(2).__array_namespace__()
    assert space.asarray([1]).tolist() == [1] and hasattr(space, "vecdot")


def test_a_version() -> None:
    assert len([int(part) for part in ours.__version__.split(".")[:3]]) == 3
