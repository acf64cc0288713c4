"""One folder per operation: its contract, and how each kind of device runs it.

`kernels/rms_norm/__init__.py` is the contract and the NumPy reference. `cpu.py` and `cuda.py` have
the same launch functions, one for each kind of device; `cpu_body.py` is the CPU kernel, in Numba.
CUDA kernels are `cuda_kernels/*.cu`. `kernel.py` has what launches are made of.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any


class Launches:
    """The launch functions of one kind of device, loaded with their first use.

    `launches.rms_norm` is the module `kernels/rms_norm/cpu.py`, or `cuda.py`.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, operation: str) -> Any:
        module = import_module(f"{__name__}.{operation}.{self._kind}")
        setattr(self, operation, module)
        return module


@functools.cache
def launches_of(kind: str) -> Launches:
    """The launch functions of devices of a kind, "cpu" or "cuda"."""
    return Launches(kind)
