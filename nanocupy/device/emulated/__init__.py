"""A GPU played by the CPU: the CUDA device's code and kernels run where there is no GPU."""

from __future__ import annotations

from nanocupy.device.emulated.build import unavailable
from nanocupy.device.emulated.device import EmulatedDevice

__all__ = ["EmulatedDevice", "unavailable"]
