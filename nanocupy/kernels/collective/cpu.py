"""Launches of collectives on CPUs, whose ranks share a window of memory (`device.cpu.link`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.cpu.link import LINE, SLOT, window_bytes
from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.collective import HOW, check_reduction, check_widths, link_of
from nanocupy.kernels.kernel import CpuKernel

ALL_REDUCE = CpuKernel("collective:all_reduce")
GATHER_COLUMNS = CpuKernel("collective:gather_columns")
DTYPES = (np.dtype(np.float32),)


class WindowArgs(NamedTuple):
    """The first arguments of both kernels."""

    out: DeviceArray
    x: DeviceArray
    rows: DeviceArray
    flags: np.ndarray  # a line for each (rank, thread): the epoch that it has published
    slots: np.ndarray  # [parity][rank]
    slot_bytes: int  # of one slot, which the threads of its rank share
    rank: int
    ranks: int
    abort: np.ndarray  # int64 of this process: not zero to give up


class ReduceArgs(NamedTuple):
    """Arguments of all_reduce after those of the window."""

    width: int
    how: int  # an index of HOW


class GatherArgs(NamedTuple):
    """Arguments of gather_columns after those of the window."""

    widths: DeviceArray  # int64, of each rank


def launch_all_reduce(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, width: int, how: str = "sum"
) -> Launch:
    """out = the sum or the max of every rank's x, on the first `rows` rows of `width`.

    Raises:
        ValueError: the device is part of no group; `how` is neither "sum" nor "max".
    """
    check_reduction(how)
    args = ReduceArgs(width, HOW.index(how))
    return Launch(ALL_REDUCE, (*_window(device, out, x, rows), *args))


def launch_gather_columns(
    device: Device, out: DeviceArray, x: DeviceArray, rows: Rows, widths: Sequence[int],
    scratch: DeviceArray | None,
) -> Launch:  # fmt: skip
    """out = every rank's columns side by side, on the first `rows` rows.

    Args:
        widths: the number of columns of each rank.
        scratch: of `gather_scratch`.

    Raises:
        ValueError: the device is part of no group, or of one with another number of ranks.
    """
    check_widths(device, widths)
    args = GatherArgs(device.asarray(np.array(widths, np.int64)))
    return Launch(GATHER_COLUMNS, (*_window(device, out, x, rows), *args))


def gather_scratch(device: Device, size: int, dtype: Any) -> DeviceArray | None:
    """Working memory of gather_columns, whose result has `size` elements: none."""
    return None


def _window(device: Device, out: DeviceArray, x: DeviceArray, rows: Rows) -> WindowArgs:
    link = link_of(device)
    nbytes, flags = window_bytes(link.ranks, device.threads), LINE * link.ranks * device.threads
    if link.window.nbytes < nbytes or link.window.ctypes.data % LINE:
        raise ValueError(
            f"[distributed] a window of {link.window.nbytes} bytes: {link.ranks} ranks with "
            f"{device.threads} threads each need {nbytes}, on a cache line"
        )
    memory = (link.window[:flags], link.window[flags:], SLOT)
    return WindowArgs(out, x, rows.count, *memory, link.rank, link.ranks, link.abort)
