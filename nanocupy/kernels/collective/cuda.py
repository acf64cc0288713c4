"""Launches of collectives on CUDA: carried out by NCCL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import FLOATS
from nanocupy.kernels.collective import check_reduction, check_widths, link_of
from nanocupy.kernels.kernel import ALL_REDUCE, GATHER_COLUMNS

DTYPES = tuple(FLOATS)


def launch_all_reduce(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, width: int, how: str = "sum"
) -> Launch:
    """See `cpu.launch_all_reduce`."""
    check_reduction(how)
    link_of(device)
    return Launch(ALL_REDUCE, (x, out, int(rows) * width, how))


def launch_gather_columns(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, widths: Sequence[int],
    scratch: DeviceArray | None,
) -> Launch:  # fmt: skip
    """See `cpu.launch_gather_columns`."""
    check_widths(device, widths)
    return Launch(GATHER_COLUMNS, (x, out, scratch, int(rows), tuple(widths)))


def gather_scratch(device: Device, size: int, dtype: Any) -> DeviceArray | None:
    """Working memory of gather_columns, whose result has `size` elements: as many."""
    return device.empty((size,), dtype)
