"""The device an engine runs on: chosen by `device=`, made once; and how it joins others'."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from nanocupy.device.protocols import Device, Tick
from nanocupy.distributed import Group
from nanocupy.engine.options import EngineOptions


def make_device(options: EngineOptions, group: Group, tick: Tick | None = None) -> Device:
    """Make the device of the options; "auto" is a GPU where CuPy and a driver are, else the CPU.

    Each rank on a host gets a GPU of its own, by local rank.

    Raises:
        ValueError: there are more ranks on this host than GPUs.
        RuntimeError: device="cuda" without CuPy, a driver or a GPU; device="emulated" without a
            C++ compiler. The message says what to install.
    """
    if options.device == "emulated":
        from nanocupy.device.emulated import EmulatedDevice

        return EmulatedDevice(tick=tick)
    if options.device == "cuda" or (options.device == "auto" and _has_gpu()):
        from nanocupy.device.cuda.device import CudaDevice
        from nanocupy.device.cuda.toolkit import count_gpus

        if group.size() > 1 and group.local_size > (gpus := count_gpus()):
            raise ValueError(
                f"{group.local_size} processes on this host and {gpus} GPUs: each process needs a "
                "GPU of its own; start fewer with mpirun -n, or use --device cpu"
            )
        return CudaDevice(index=group.local_rank, tick=tick)
    from nanocupy.device.cpu.device import CpuDevice

    return CpuDevice(options.threads or group.threads, tick=tick)


def connect(device: Device, group: Group) -> Callable[[], None]:
    """Connect the device with those of the other ranks. Returns what ends that, on all ranks.

    Raises:
        ValueError: the ranks cannot work together: different devices or threads, CPUs of several
            hosts.
    """
    if group.size() == 1:
        return lambda: None
    names = {name.decode() for name in group.exchange(device.name.encode)}
    if len(names) > 1:
        raise ValueError(f"the ranks would run on {' and '.join(sorted(names))}: give --device")
    device.connect(group)
    return device.disconnect


def _has_gpu() -> bool:
    if find_spec("cupy") is None:
        return False
    from nanocupy.device.cuda.toolkit import unavailable

    return unavailable() is None
