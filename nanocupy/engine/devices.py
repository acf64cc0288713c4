"""The device an engine runs on: chosen by `device=`, made once."""

from __future__ import annotations

from typing import Any

from nanocupy.device.base import Tick
from nanocupy.engine.options import EngineOptions


def make_device(options: EngineOptions, tick: Tick | None = None) -> Any:
    """The device of the options; "auto" is a GPU where CuPy and a driver are, else the CPU.

    Raises:
        RuntimeError: device="cuda" without CuPy, a driver or a GPU; device="emulated" without a
            C++ compiler. The message says what to install.
    """
    if options.device == "emulated":
        from nanocupy.device.emulated import EmulatedDevice

        return EmulatedDevice(tick=tick)
    if options.device == "cuda" or (options.device == "auto" and _has_gpu()):
        from nanocupy.device.cuda.device import CudaDevice

        return CudaDevice(tick=tick)
    from nanocupy.device.cpu.device import CpuDevice

    return CpuDevice(options.threads, tick=tick)


def _has_gpu() -> bool:
    from nanocupy.device.cuda.toolkit import unavailable

    return unavailable() is None
