"""Where operations run when they are evaluated, as `mlx.core` asks: on the CPU, in NumPy.

There is one device and one order of operations, so that a stream is only a name: functions accept
the CPU's streams and refuse others. A Program runs on the device it is compiled for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from nanocupy.core.recorder.public import Place, check_place


class DeviceType(Place, Enum):
    """`cpu` or `gpu`; equal to the first `Device` of its kind."""

    cpu = 0
    gpu = 1

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return self.name == "cpu"

    def __eq__(self, other: object) -> bool:
        return other == Device(self) if isinstance(other, Device) else self is other

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return str(self)


cpu, gpu = DeviceType.cpu, DeviceType.gpu


class Device(Place):
    """A device of a type, by its number."""

    type: DeviceType
    index: int

    def __init__(self, type: Any, index: int = 0) -> None:
        if not isinstance(type, DeviceType):
            raise TypeError(f"[Device] {str(type)[:40]!r}: expected mx.cpu or mx.gpu")
        self.type, self.index = type, index
        self.is_cpu = type is cpu and index == 0

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DeviceType):
            other = Device(other)
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        return f"Device({self.type.name}, {self.index})"


@dataclass(frozen=True)
class Stream(Place):
    """A name for an order of operations on a device."""

    index: int
    device: Device

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return self.device.is_cpu

    def __repr__(self) -> str:
        return f"Stream({self.device}, {self.index})"


ThreadLocalStream = Stream
_CPU = Device(cpu)
_numbers = itertools.count(1)
_default = Stream(0, _CPU)


# ---- as `mlx.core`


def default_device() -> Device:
    """The CPU."""
    return _CPU


def set_default_device(device: Any) -> None:
    """Only the CPU."""
    check_place("set_default_device", device)


def is_available(device: Any) -> bool:
    """Whether operations are evaluated there."""
    return bool(device == _CPU)


def device_count(device_type: DeviceType) -> int:
    """One CPU."""
    return int(device_type == cpu)


def device_info(device: Any = None) -> dict[str, str | int]:
    """Return the name and architecture of a device."""
    if device is not None:
        check_place("device_info", device)
    import platform

    return {
        "device_name": platform.processor() or platform.machine(),
        "architecture": platform.machine(),
    }


def default_stream(device: Any) -> Stream:
    """The stream of a device's operations."""
    check_place("default_stream", device)
    return _default


def set_default_stream(stream: Any) -> None:
    """Only one of the CPU's."""
    check_place("set_default_stream", stream)


def new_stream(device: Any = cpu) -> Stream:
    """Another stream: its operations are evaluated in one order with all others."""
    check_place("new_stream", device)
    return Stream(next(_numbers), _CPU)


new_thread_local_stream = new_thread_unsafe_stream = new_stream


def clear_streams() -> None:
    """There is nothing to clear."""


@contextmanager
def stream(s: Any) -> Iterator[None]:
    """Operations in this block belong to a stream or a device: the CPU's, as those outside."""
    check_place("stream", s)
    yield


StreamContext = stream


def synchronize(stream: Any = None) -> None:
    """Nothing to wait for: `eval` returns when values are there."""
    if stream is not None:
        check_place("synchronize", stream)
