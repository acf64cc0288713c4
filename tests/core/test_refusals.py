"""Arguments that cannot be: refused when the function is called, as in MLX, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from beside_mlx import both, ours

X = np.arange(6).reshape(2, 3)
Call = Callable[[Any, Any], Any]

REFUSED: list[Call] = [
    lambda mx, x: mx.fast.rope(x, 0, traditional=False, base=1e4, scale=1.0, offset=0),
    lambda mx, x: mx.fast.rope(x, -2, traditional=False, base=1e4, scale=1.0, offset=0),
    lambda mx, x: mx.fast.rope(x, 3, traditional=False, base=1e4, scale=1.0, offset=0),
    lambda mx, x: mx.fast.rope(x, 10, traditional=False, base=1e4, scale=1.0, offset=0),
    lambda mx, x: mx.fast.rope(x[0, 0], 2, traditional=False, base=1e4, scale=1.0, offset=0),
    lambda mx, x: mx.fast.rope(x, 2, traditional=False, base=1e4, scale=1.0, offset=0.5),
    lambda mx, x: mx.fast.rope(x, 2, traditional=False, base=None, scale=1.0, offset=0),
    lambda mx, x: mx.fast.rope(
        x, 4, traditional=False, base=1e4, scale=1.0, offset=mx.array([1, 2, 3])
    ),
    lambda mx, x: mx.fast.rope(
        x, 4, traditional=False, base=None, scale=1.0, offset=0, freqs=mx.ones(3)
    ),
    lambda mx, x: mx.fast.rope(
        x.astype(mx.int32), 4, traditional=False, base=1e4, scale=1.0, offset=0
    ),
    lambda mx, x: mx.fast.rms_norm(x.astype(mx.int32), None, 1e-5),
    lambda mx, x: mx.fast.rms_norm(mx.array(1.0), None, 1e-5),
    lambda mx, x: mx.fast.rms_norm(x, mx.ones((1, 4)), 1e-5),
    lambda mx, x: mx.fast.layer_norm(x.astype(mx.int32), None, None, 1e-5),
    lambda mx, x: mx.fast.layer_norm(mx.array(1.0), None, None, 1e-5),
    lambda mx, x: attend(mx, x, sinks=mx.array(1.0)),
    lambda mx, x: attend(mx, x, sinks=mx.ones(1)),
    lambda mx, x: attend(mx, x, mask="left"),
    lambda mx, x: attend(mx, x, mask=mx.ones((5, 3))),
    lambda mx, x: attend(mx, x, mask=mx.ones((1, 2, 2, 3, 3))),
    lambda mx, x: attend(mx, x, mask=mx.ones((3, 3), mx.float64)),
    lambda mx, x: attend(mx, x.astype(mx.float16), sinks=mx.ones(2)),
    lambda mx, x: mx.broadcast_shapes(),
    lambda mx, x: mx.split(x, 0),
    lambda mx, x: mx.split(x, -1),
    lambda mx, x: mx.split(x, 3),
    lambda mx, x: mx.split(x, 2.0),
    lambda mx, x: mx.split(x, 2, 7),
    lambda mx, x: mx.pad(x, -1),
    lambda mx, x: mx.pad(x, 1.5),
    lambda mx, x: mx.pad(x, (1, 2, 3)),
    lambda mx, x: mx.pad(x, 1, "around"),
    lambda mx, x: mx.as_strided(x, (2, -2), (1, 1)),
    lambda mx, x: mx.linspace(0, 1, -1),
    lambda mx, x: mx.linspace(0, 1, 2.5),
    lambda mx, x: mx.linspace(0, 1, 3, mx.float32),
    lambda mx, x: mx.vecdot(mx.ones((2, 3)), mx.ones((2, 4))),
    lambda mx, x: mx.vecdot(mx.ones((2, 3)), mx.ones((2, 1))),
    lambda mx, x: mx.vecdot(mx.ones((2, 3)), mx.ones((2, 3)), axis=2),
    lambda mx, x: mx.kron(mx.array([]), mx.array([1.0])),
    lambda mx, x: mx.random.bernoulli(1),
    lambda mx, x: mx.random.bernoulli(True),
    lambda mx, x: mx.random.bernoulli(mx.array([0.5, 0.5]), (3,)),
    lambda mx, x: mx.random.uniform(shape=(-1,)),
    lambda mx, x: mx.random.uniform(dtype=mx.int32),
    lambda mx, x: mx.random.uniform(mx.zeros(2), mx.ones(2)),
    lambda mx, x: mx.random.normal((2,), mx.int32),
    lambda mx, x: mx.random.laplace((2,), mx.int32),
    lambda mx, x: mx.random.gumbel((2,), mx.int32),
    lambda mx, x: mx.random.truncated_normal(0, 1, (2,), mx.int32),
    lambda mx, x: mx.random.randint(0, 2, (2,), mx.float32),
    lambda mx, x: mx.random.randint(0, 2, (-2,)),
    lambda mx, x: mx.random.key(-1),
    lambda mx, x: mx.random.key(2**64),
    lambda mx, x: mx.random.seed(-1),
    lambda mx, x: mx.random.split(mx.random.key(0), -1),
    lambda mx, x: mx.random.permutation(-3),
    lambda mx, x: mx.random.categorical(x, axis=5),
    lambda mx, x: mx.random.categorical(mx.ones((3, 4)), shape=(2,)),
    lambda mx, x: mx.arange(0, 1, 0),
    lambda mx, x: mx.arange(0, float("inf")),
    lambda mx, x: mx.arange(0, float("nan")),
    lambda mx, x: mx.arange(),
    lambda mx, x: mx.arange(True),
    lambda mx, x: mx.zeros((2, -1)) if mx is ours else mx.reshape(x, (1, 1)),
    lambda mx, x: mx.zeros((2.0,)),
    lambda mx, x: mx.eye(2.5),
    lambda mx, x: mx.hamming(2.5),
    lambda mx, x: mx.diff(x, -1),
    lambda mx, x: mx.roll(x, 1, 9),
    lambda mx, x: mx.repeat(x, 1.5),
    lambda mx, x: mx.tensordot(x, x, -1),
    lambda mx, x: mx.tensordot(mx.ones((2, 3)), mx.ones((2, 3)), 1),
    lambda mx, x: mx.clip(x, None, None),
    lambda mx, x: mx.round(x, decimals=1.0),
    lambda mx, x: mx.conv1d(mx.ones((1, 5, 2), mx.int32), mx.ones((1, 3, 2), mx.int32)),
    lambda mx, x: mx.convolve(mx.ones((2, 2)), mx.ones(2)),
    lambda mx, x: mx.convolve(mx.array([]), mx.ones(2)),
    lambda mx, x: x.astype(None),
    lambda mx, x: mx.slice(mx.arange(5), mx.array([1]), (0,), (9,)),
    lambda mx, x: mx.slice(mx.arange(5), mx.array([1]), (0, 1), (2,)),
    lambda mx, x: mx.slice(mx.arange(5), mx.array([1.0]), (0,), (2,)),
    lambda mx, x: mx.slice_update(mx.arange(5), mx.ones(9), mx.array([1]), (0,)),
    lambda mx, x: mx.to_fp8(mx.array([1])),
    lambda mx, x: mx.from_fp8(mx.array([1.0])),
    lambda mx, x: mx.block_masked_mm(
        mx.ones((64, 64)), mx.ones((64, 64)), 32, mask_out=mx.ones((3, 3), mx.bool_)
    ),
    lambda mx, x: mx.tril(mx.ones((2, 2)), 1.5),
    lambda mx, x: mx.compile(3),
    lambda mx, x: mx.issubdtype("a", mx.number),
    lambda mx, x: mx.can_cast("a", mx.float16),
    lambda mx, x: mx.isdtype(mx.int32, "zz"),
    lambda mx, x: mx.sum(x, axis=1.0),
]


def attend(mx: Any, x: Any, **how: Any) -> Any:
    return mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0, **how)


@pytest.mark.parametrize("call", REFUSED)
def test_what_cannot_be_is_refused(call: Call) -> None:
    both(lambda mx, of: call(mx, mx.zeros((2, 2, 3, 4))))
    with pytest.raises((ValueError, TypeError, IndexError)) as refused:
        call(ours, ours.zeros((2, 2, 3, 4)))  # when it is called, and not when it is used
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "call",
    [
        lambda mx: mx.random.randint(0, 300, (2,), mx.uint8),
        lambda mx: mx.random.randint(-5, 5, (2,), mx.uint8),
        lambda mx: mx.random.randint(0, 2**40, (2,)),
        lambda mx: mx.as_strided(mx.arange(6), (3,), (2**62,)),
        lambda mx: mx.as_strided(mx.arange(6), (7,), (1,)),
        lambda mx: mx.as_strided(mx.arange(6), (2, 2), (1,)),
        lambda mx: mx.roll(mx.ones((2, 3)), (1, 2, 3), (0, 1)),
        lambda mx: mx.pad(mx.ones(3), 1, constant_values=mx.array([1.0, 2.0])),
        lambda mx: mx.unflatten(mx.arange(6), 0, (0, -1)),
        lambda mx: mx.conv1d(mx.ones((1, 5, 2)), mx.ones((1, 3, 2)), groups=0),
    ],
)
def test_where_mlx_goes_astray_a_refusal(call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"^\["):
        call(ours)


def test_an_axis_that_is_not_there_is_both_kinds_of_error() -> None:
    for kind in (ValueError, IndexError):
        for call in (ours.flip, ours.softmax, ours.cumsum, ours.median, ours.sort, ours.sum):
            with pytest.raises(kind, match="axis 5"):
                call(ours.ones((2, 3)), axis=5)
