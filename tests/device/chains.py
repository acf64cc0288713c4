"""Lists of launches in which each needs the one before."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import fixed_rows
from nanocupy.kernels import launches_of

CPU = launches_of("cpu")


def chain(device: CpuDevice, length: int, rows: int = 37, width: int = 48) -> tuple[Any, Any, Any]:
    """(launches, input, last output): add 1 `length` times, each launch reading the one before."""
    count = fixed_rows(device, rows)
    one = device.asarray(np.ones((rows, width), np.float32))
    values = [device.empty((rows, width), np.float32) for _ in range(2)]
    launches = [
        CPU.elementwise.launch_binary(
            device, "add", values[(i + 1) % 2], values[i % 2], one, count, width
        )
        for i in range(length)
    ]
    return launches, values[0], values[length % 2]
