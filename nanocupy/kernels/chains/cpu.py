"""Chains on a CPU: in a Program, and at once on NumPy arrays."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.chain import Chain, Loops
from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import DTYPES
from nanocupy.kernels.chains import Layout, Strides, layout

SERIAL = 16_384  # elements that one thread is done with before another would have woken
MOST_WALKS = 1024  # shapes and strides that one chain remembers
STREAM = 16 << 20  # bytes of results that no cache keeps for who reads them next
_KERNEL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_ONE = np.ones(1, np.int64)


def launch(
    device: Device, chain: Chain, outs: Sequence[DeviceArray], ins: Sequence[DeviceArray],
    rows: Rows, how: Layout,
) -> Launch:  # fmt: skip
    """The chain on the first `rows` rows."""
    return Launch(kernel_of(chain, how.loops), (*outs, *ins, rows.count, *how.numbers))


@cache
def kernel_of(chain: Chain, loops: Loops) -> Any:
    """The kernel, made once."""
    from nanocupy.device.cpu.chains import ChainKernel

    return ChainKernel(chain, loops)


# ---- on NumPy arrays, now


class Walk(NamedTuple):
    """A chain on arrays of certain shapes and strides."""

    shape: tuple[int, ...]
    size: int
    kernel: Any
    function: Any
    numbers: tuple[int, ...]
    words: Any


class HostChain:
    """A chain as a function of NumPy arrays, which are broadcast.

    Args:
        empty: `empty(shape, dtype)`: where results come from.
    """

    def __init__(self, chain: Chain, empty: Callable[..., np.ndarray] = np.empty) -> None:
        self.chain, self._empty = chain, empty
        self._dtypes = [DTYPES[kind] for _, kind in chain.outputs]
        self._walks: dict[Any, Walk] = {}

    @property
    def source(self) -> str:
        """The source of its kernel for inputs without gaps."""
        ways = ("row",) * len(self.chain.inputs)
        return str(kernel_of(self.chain, Loops(0, ways)).text)

    def __call__(self, *arrays: np.ndarray, out: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        """Compute the outputs.

        Args:
            out: arrays for the outputs. Default: new ones. One may be an input of the same shape
                and element size.
        """
        key = tuple([(x.shape, x.strides) for x in arrays])
        walk = self._walks.get(key) or self._walk(key)
        outs = out or [self._empty(walk.shape, dtype) for dtype in self._dtypes]
        addresses = [x.ctypes.data for x in (*outs, *arrays)]
        words = walk.words(*addresses, *walk.numbers)
        if walk.size <= SERIAL:
            walk.function(words, 0, 1)
        else:
            call(self._kernel(walk, addresses[: len(outs)]).address, words)
        return list(outs)

    def _kernel(self, walk: Walk, outs: list[int]) -> Any:
        """The kernel for many elements: large results are written past the caches."""
        kernel = walk.kernel
        bytes_out = walk.size * sum(d.itemsize for d in self._dtypes)
        even = kernel.loops.outer == 0 or walk.shape[-1] % 16 == 0
        if bytes_out >= STREAM and even and not any(a % 64 for a in outs):
            kernel = kernel_of(self.chain, kernel.loops._replace(stream=True))
        return kernel

    def _walk(self, key: Any) -> Walk:
        shapes = [shape for shape, _ in key]
        shape = np.broadcast_shapes(*shapes)
        strides = [_broadcast_strides(s, steps, shape) for s, steps in key]
        how = layout(shape, strides, self.chain.inputs)
        kernel = kernel_of(self.chain, how.loops)
        scale, *others = how.numbers
        numbers = (_ONE.ctypes.data, scale * (shape[0] if shape else 1), *others)
        count = sum(kernel.loops.counts(self.chain).values())
        words = ctypes.c_int64 * count
        walk = Walk(shape, math.prod(shape), kernel, _KERNEL(kernel.address), numbers, words)
        if len(self._walks) >= MOST_WALKS:
            self._walks.clear()
        return self._walks.setdefault(key, walk)


def _broadcast_strides(shape: Any, strides: Any, to: tuple[int, ...]) -> Strides:
    missing = len(to) - len(shape)
    own = (0 if d == 1 else s for d, s in zip(shape, strides, strict=True))
    return (*[0] * missing, *own)


def call(address: int, words: Any, serial: bool = False) -> None:
    """Run a kernel on the thread pool that engines use, or on this thread.

    Args:
        words: its arguments, a ctypes array of int64.
        serial: on this thread.
    """
    if serial:
        _KERNEL(address)(words, 0, 1)
        return
    from nanocupy.device.cpu import device, thread_pool

    pool = thread_pool.shared_pool(min(device.available_threads(), device.MAX_THREADS))
    table = (ctypes.c_int64 * 2)(address, ctypes.addressof(words))
    pool.run(ctypes.addressof(table), 1, pool.governor.threads)
