"""Where operations run when they are evaluated, as `mlx.core` asks: on the CPU, in NumPy.

A Program runs on the device it is compiled for, which is a `nanocupy.device`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class DeviceType(Enum):
    """`cpu` or `gpu`."""

    cpu = 0
    gpu = 1


Device = DeviceType
cpu, gpu = DeviceType.cpu, DeviceType.gpu


def default_device() -> DeviceType:
    """The CPU."""
    return cpu


def set_default_device(device: DeviceType) -> None:
    """Only the CPU."""
    if device != cpu:
        raise NotImplementedError("[set_default_device] eval on a GPU: compile for it instead")


def is_available(device: DeviceType) -> bool:
    """Whether operations are evaluated there."""
    return device == cpu


def device_count(device_type: DeviceType) -> int:
    """One CPU."""
    return int(device_type == cpu)


def device_info(device: Any = None) -> dict[str, str | int]:
    """What `default_device` is."""
    return {"device_name": "NumPy", "architecture": "cpu"}


def synchronize(stream: Any = None) -> None:
    """Nothing to wait for: `eval` returns when values are there."""
