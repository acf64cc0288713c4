"""Where operations run when they are evaluated, as `mlx.core` asks: on the CPU, in NumPy.

There is one device and one order of things, so that a stream is a name: functions accept those of
the CPU and refuse others. A Program runs on the device it is compiled for, a `nanocupy.device`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any


class DeviceType(Enum):
    """`cpu` or `gpu`; equal to the first `Device` of its kind."""

    cpu = 0
    gpu = 1

    def __eq__(self, other: object) -> bool:
        return other == Device(self) if isinstance(other, Device) else self is other

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return str(self)


cpu, gpu = DeviceType.cpu, DeviceType.gpu


class Device:
    """A device of a type, by its number."""

    type: DeviceType
    index: int

    def __init__(self, type: Any, index: int = 0) -> None:
        if not isinstance(type, DeviceType):
            raise TypeError(f"[Device] {str(type)[:40]!r}: expected mx.cpu or mx.gpu")
        self.type, self.index = type, index

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DeviceType):
            other = Device(other)
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        return f"Device({self.type.name}, {self.index})"


class Stream:
    """A name for an order of operations on a device."""

    def __init__(self, index: int, device: Device) -> None:
        self.index, self.device = index, device

    def __eq__(self, other: object) -> bool:
        known = isinstance(other, Stream)
        return known and (self.index, self.device) == (other.index, other.device)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((self.index, self.device))

    def __repr__(self) -> str:
        return f"Stream({self.device}, {self.index})"


ThreadLocalStream = Stream
PLACES = (Stream, Device, DeviceType)
_CPU = Device(cpu)
_numbers = itertools.count(1)
_default = Stream(0, _CPU)


def checked(name: str, given: Any) -> Device:
    """The CPU, of a stream or a device that is it.

    Raises:
        TypeError: it is something else.
        ValueError: it is a GPU.
    """
    device = given.device if isinstance(given, Stream) else given
    if not isinstance(device, Device | DeviceType):
        raise TypeError(f"[{name}] {str(given)[:40]!r}: expected a stream or a device")
    if device != _CPU:
        raise ValueError(
            f"[{name}] {device}: arrays are evaluated on the CPU; compile for a GPU instead: "
            "mx.compile(function, device=...)"
        )
    return _CPU


# ---- as `mlx.core`


def default_device() -> Device:
    """The CPU."""
    return _CPU


def set_default_device(device: Any) -> None:
    """Only the CPU."""
    checked("set_default_device", device)


def is_available(device: Any) -> bool:
    """Whether operations are evaluated there."""
    return bool(device == _CPU)


def device_count(device_type: DeviceType) -> int:
    """One CPU."""
    return int(device_type == cpu)


def device_info(device: Any = None) -> dict[str, str | int]:
    """What a device is."""
    if device is not None:
        checked("device_info", device)
    import platform

    return {
        "device_name": platform.processor() or platform.machine(),
        "architecture": platform.machine(),
    }


def default_stream(device: Any) -> Stream:
    """The stream of a device's operations."""
    checked("default_stream", device)
    return _default


def set_default_stream(stream: Any) -> None:
    """Only one of the CPU's."""
    checked("set_default_stream", stream)


def new_stream(device: Any = cpu) -> Stream:
    """Another stream: its operations are evaluated in one order with all others."""
    return Stream(next(_numbers), checked("new_stream", device))


new_thread_local_stream = new_thread_unsafe_stream = new_stream


def clear_streams() -> None:
    """There is nothing to clear."""


@contextmanager
def stream(s: Any) -> Iterator[None]:
    """Operations in this block belong to a stream or a device: the CPU's, as those outside."""
    checked("stream", s)
    yield


StreamContext = stream


def synchronize(stream: Any = None) -> None:
    """Nothing to wait for: `eval` returns when values are there."""
    if stream is not None:
        checked("synchronize", stream)
