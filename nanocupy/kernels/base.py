"""What a kernel's contract file needs, free of compilers until a kernel is run."""

from __future__ import annotations

from functools import cached_property
from typing import Any


class CpuKernel:
    """A CPU kernel, named `"file:function"` in `nanocupy.kernels.cpu`, linked on first use."""

    def __init__(self, source: str) -> None:
        self.source = f"nanocupy.kernels.cpu.{source}"
        self.name = source.split(":")[1]

    def __repr__(self) -> str:
        return f"CpuKernel({self.source})"

    @cached_property
    def _kernel(self) -> Any:
        from nanocupy.device.cpu.jit import Kernel

        return Kernel(self.source)

    @property
    def ready(self) -> bool:
        """Whether `address` needs no compilation."""
        return bool(self._kernel.ready)

    @property
    def address(self) -> int:
        """Address of the machine code; compiled now if no cache has it."""
        return int(self._kernel.address)
