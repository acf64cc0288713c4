"""Kernels of a user's, on the CPU and on the emulated GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from nanocupy.core import fast
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.emulated import EmulatedDevice, unavailable

emulated = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def scan(x: Any, weight: Any, total: Any, last: Any, thread: int, threads: int) -> None:
    """Running sums of rows, times a weight; and each row's last."""
    for row in range(thread, x.shape[0], threads):
        so_far = np.float32(0)
        for i in range(x.shape[1]):
            so_far += x[row, i]
            total[row, i] = so_far * weight[0]
        last[row] = so_far


CUDA = """
  const long long rows = last_size, width = x_size / last_size;
  const long long row = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  float so_far = 0;
  for (long long i = 0; i < width; i++) {
    so_far += x[row * width + i];
    total[row * width + i] = times(so_far, *weight);
  }
  last[row] = so_far;
"""
HEADER = "__device__ float times(float a, float b) { return a * b; }"
KERNEL = fast.custom_kernel(
    "scan", ["x", "weight"], ["total", "last"], cpu=scan, cuda=CUDA, header=HEADER
)


def call(x: mx.array, weight: mx.array) -> list[mx.array]:
    shape = x.shape
    return KERNEL(
        inputs=[x, weight],
        output_shapes=[shape, shape[:1]],
        output_dtypes=[mx.float32, mx.float32],
        grid=(shape[0], 1, 1),
        threadgroup=(32, 1, 1),
    )


def function(x: mx.array, weight: mx.array) -> mx.array:
    """Between chains."""
    total, last = call(x * 2 + 1, weight)
    return total - last.reshape(-1, 1) * 0.5


@pytest.mark.parametrize("rows", [3, 50, 3000])
@pytest.mark.parametrize("turned", [False, True])
def test_a_numba_function_is_an_operation(rows: int, turned: bool) -> None:
    host = np.random.default_rng(0).integers(-9, 9, (rows, 7)).astype(np.float32)
    x = mx.array(host)
    if turned:
        x, host = mx.array(np.ascontiguousarray(host.T)).T, host
    total, last = call(x, mx.array(3.0))
    assert np.array_equal(total.numpy(), np.cumsum(host, 1) * 3)
    assert np.array_equal(last.numpy(), host.sum(1))


def devices() -> list[Any]:
    return [None, lambda: CpuDevice(2), pytest.param(EmulatedDevice, marks=emulated)]


@pytest.mark.parametrize("device", devices())
def test_it_runs_inside_compiled_functions_on_every_device(device: Any) -> None:
    x = mx.array(np.random.default_rng(0).integers(-9, 9, (40, 7)).astype(np.float32))
    w = mx.array(0.25)
    compiled = mx.compile(function, device=device and device())
    assert np.array_equal(compiled(x, w).numpy(), function(x, w).numpy())


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="as C has them"):
        fast.custom_kernel("a b", ["x"], ["y"], cpu=scan)
    with pytest.raises(ValueError, match="that differ"):
        fast.custom_kernel("k", ["x"], ["x"], cpu=scan)
    with pytest.raises(ValueError, match="give cpu="):
        fast.custom_kernel("k", ["x"], ["y"])
    x = mx.zeros((2, 2))
    with pytest.raises(ValueError, match="1 inputs: expected 2"):
        KERNEL(inputs=[x], output_shapes=[(2,), (2,)], output_dtypes=[mx.float32] * 2)
    with pytest.raises(ValueError, match="positive"):
        KERNEL(
            inputs=[x, x],
            output_shapes=[(2,), (2,)],
            output_dtypes=[mx.float32] * 2,
            grid=(0, 1, 1),
        )
    with pytest.raises(ValueError, match="Numba knows no float16"):
        mx.eval(call(x.astype(mx.float16), x))
    only = fast.custom_kernel("k", ["x"], ["y"], cuda="y[0] = x[0];")
    with pytest.raises(NotImplementedError, match="no CPU function"):
        mx.eval(only(inputs=[x], output_shapes=[(1,)], output_dtypes=[mx.float32]))

    def wrong(x: Any, y: Any, thread: int, threads: int) -> None:
        y[0] = x.no_such_thing

    bad = fast.custom_kernel("bad", ["x"], ["y"], cpu=wrong)
    with pytest.raises(ValueError, match="bad: Numba cannot compile"):
        mx.eval(bad(inputs=[x], output_shapes=[(1,)], output_dtypes=[mx.float32]))


@emulated
def test_wrong_cuda_says_what_the_compiler_says() -> None:
    bad = fast.custom_kernel("bad", ["x"], ["y"], cuda="y[0] = no_such_thing;")

    def use(x: mx.array) -> mx.array:
        return bad(inputs=[x], output_shapes=[(1,)], output_dtypes=[mx.float32])[0]

    with pytest.raises(Exception, match="no_such_thing"):
        mx.compile(use, device=EmulatedDevice())(mx.zeros(3))
