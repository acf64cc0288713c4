"""A user's kernel on a CPU: in a Program, and at once on NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch
from nanocupy.dtypes import KINDS
from nanocupy.kernels.chains.cpu import SERIAL, call
from nanocupy.kernels.custom import Source, Specs

_KNOWN = frozenset(KINDS.values()) - {"f16", "bf16"}


def launch(
    device: Device, source: Source, arrays: Sequence[DeviceArray], specs: Specs,
    grid: tuple[int, int, int], block: int,
) -> Launch:  # fmt: skip
    """The kernel on its inputs and outputs, flat `arrays` of these specs."""
    dims = [int(d) for shape, _ in specs for d in shape]
    return Launch(kernel_of(source, specs), (*arrays, *dims))


def run(source: Source, arrays: Sequence[np.ndarray]) -> None:
    """Run the kernel on its inputs and outputs, arrays without gaps."""
    kernel = kernel_of(source, [(x.shape, x.dtype) for x in arrays])
    words = [x.ctypes.data for x in arrays] + [d for x in arrays for d in x.shape]
    serial = max(x.size for x in arrays) <= SERIAL
    call(kernel.address, (ctypes.c_int64 * len(words))(*words), serial)


def kernel_of(source: Source, specs: Specs) -> Any:
    """The kernel for arrays of these numbers of dimensions and dtypes, made once.

    Raises:
        NotImplementedError: the user gave no function for CPUs.
        ValueError: Numba does not know a dtype.
    """
    if source.cpu is None:
        raise NotImplementedError(f"[{source.name}] has no CPU function: give cpu=")
    if odd := [str(d) for _, d in specs if KINDS[d] not in _KNOWN]:
        raise ValueError(f"[{source.name}] Numba knows no {odd[0]}: cast it to float32 before")
    key = tuple((len(shape), dtype) for shape, dtype in specs)
    if key not in source.compiled:
        from nanocupy.device.cpu.custom import CustomKernel

        source.compiled[key] = CustomKernel(source.name, source.cpu, key)
    return source.compiled[key]
