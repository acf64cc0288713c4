"""Streams and devices: every operation accepts the CPU's, and refuses others by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from beside_mlx import both, ours

CALLS: list[Callable[[Any, Any], Any]] = [
    lambda mx, s: mx.add(1, 2, stream=s),
    lambda mx, s: mx.abs(mx.array(-1), stream=s),
    lambda mx, s: mx.zeros((2,), stream=s),
    lambda mx, s: mx.arange(3, stream=s),
    lambda mx, s: mx.sum(mx.ones(3), stream=s),
    lambda mx, s: mx.softmax(mx.ones(3), axis=0, stream=s),
    lambda mx, s: mx.cumsum(mx.ones(3), stream=s),
    lambda mx, s: mx.sort(mx.array([2, 1]), stream=s),
    lambda mx, s: mx.reshape(mx.ones(4), (2, 2), stream=s),
    lambda mx, s: mx.concatenate([mx.ones(1), mx.ones(2)], stream=s),
    lambda mx, s: mx.take(mx.arange(3), mx.array([1]), stream=s),
    lambda mx, s: mx.matmul(mx.ones((2, 2)), mx.ones((2, 2)), stream=s),
    lambda mx, s: mx.conv1d(mx.ones((1, 4, 1)), mx.ones((1, 2, 1)), stream=s),
    lambda mx, s: list(mx.quantize(mx.ones((2, 64)), stream=s)),
    lambda mx, s: mx.linalg.norm(mx.ones(3), stream=s),
    lambda mx, s: mx.fast.rms_norm(mx.ones(3), None, 1e-5, stream=s),
    lambda mx, s: mx.random.uniform(key=mx.random.key(0), stream=s),
    lambda mx, s: mx.random.split(mx.random.key(0), stream=s),
    lambda mx, s: mx.ones(3).sum(stream=s),
    lambda mx, s: mx.ones(4).reshape(2, 2, stream=s),
    lambda mx, s: mx.ones((2, 3)).transpose(stream=s),
    lambda mx, s: mx.ones(3).astype(mx.int32, stream=s),
    lambda mx, s: mx.arange(4).split(2, stream=s),
    lambda mx, s: mx.ones((2, 2)).max(axis=0, stream=s),
]


@pytest.mark.parametrize("call", CALLS)
def test_operations_accept_a_stream(call: Any) -> None:
    both(lambda mx, of: call(mx, None))
    both(lambda mx, of: call(mx, mx.cpu))
    both(lambda mx, of: call(mx, mx.Device(mx.cpu)))
    both(lambda mx, of: call(mx, mx.default_stream(mx.cpu)))
    both(lambda mx, of: call(mx, mx.new_stream(mx.cpu)))
    both(lambda mx, of: call(mx, "cpu"))
    with pytest.raises(ValueError, match="evaluated on the CPU"):
        call(ours, ours.gpu)
    with pytest.raises(TypeError, match="expected a stream or a device"):
        call(ours, "cpu")


def test_a_stream_may_be_the_last_argument() -> None:
    both(lambda mx, of: mx.ones(3).astype(mx.float16, mx.cpu))
    both(lambda mx, of: mx.ones(3).astype(mx.float16, mx.default_stream(mx.cpu)))
    with pytest.raises(ValueError, match="evaluated on the CPU"):
        ours.ones(3).astype(ours.float16, ours.gpu)


def test_blocks_of_a_stream() -> None:
    def call(mx: Any, of: Any) -> Any:
        with mx.stream(mx.cpu):
            x = mx.ones(3) + 1
            assert mx.default_device() == mx.cpu
        with mx.stream(mx.new_stream(mx.cpu)):
            return x * 2

    both(call)
    with pytest.raises(ValueError, match="CPU"), ours.stream(ours.gpu):
        pass


def test_devices_and_streams_are_mlxs() -> None:
    for call in (
        lambda mx: [mx.cpu == mx.Device(mx.cpu), mx.Device(mx.cpu) == mx.cpu, mx.cpu == mx.gpu],
        lambda mx: [mx.default_device() == mx.cpu, mx.default_device().type == mx.cpu],
        lambda mx: [str(mx.default_device()), str(mx.Device(mx.gpu, 1)), str(mx.cpu)],
        lambda mx: [mx.Device(mx.cpu, 1) == mx.cpu, mx.Device(mx.cpu) != mx.Device(mx.gpu)],
        lambda mx: [mx.default_stream(mx.cpu).device == mx.cpu],
        lambda mx: [mx.new_stream(mx.cpu) == mx.new_stream(mx.cpu)],
        lambda mx: [mx.default_stream(mx.cpu) == mx.default_stream(mx.Device(mx.cpu))],
        lambda mx: [mx.device_count(mx.cpu), mx.is_available(mx.cpu), mx.is_available(mx.gpu)],
        lambda mx: [mx.set_default_device(mx.cpu), mx.synchronize(), mx.cuda.is_available()],
        lambda mx: [mx.synchronize(mx.default_stream(mx.cpu)), mx.metal.is_available()],
        lambda mx: [sorted(mx.device_info(mx.cpu)), hash(mx.cpu) == hash(mx.cpu)],
    ):
        both(lambda mx, of, call=call: call(mx))
    for call in (
        lambda mx: mx.set_default_device(mx.gpu),
        lambda mx: mx.default_stream(mx.gpu),
        lambda mx: mx.new_stream(mx.gpu),
        lambda mx: mx.Device("cpu"),
    ):
        both(lambda mx, of, call=call: call(mx))
