"""Collectives: what the ranks of a group compute together, in one launch on each.

all_reduce: out = the sum of every rank's x, or the largest, element by element: x, out [rows,
width], out may be x. gather_columns: out = every rank's x side by side: x [rows, widths[rank]], out
[rows, sum(widths)]. On all ranks alike, to the bit: sums are added in the order of ranks. f32; on
CUDA also f16 and bf16, carried out by NCCL.

All ranks launch the same collectives in the same order, with the same number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from nanocupy.device.cpu.link import LINE, SLOT, Link, window_bytes
from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import ALL_REDUCE, GATHER_COLUMNS, CpuKernel

CPU_ALL_REDUCE = CpuKernel("collective:all_reduce")
CPU_GATHER_COLUMNS = CpuKernel("collective:gather_columns")
HOW = ("sum", "max")


def all_reduce_reference(parts: Sequence[np.ndarray], how: str = "sum") -> np.ndarray:
    """Every rank's x, one after the other."""
    return np.asarray(reduce(np.add if how == "sum" else np.maximum, parts))


def gather_columns_reference(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Every rank's x [rows, widths[rank]] -> [rows, sum(widths)]."""
    return np.concatenate(parts, axis=-1)


def launch_all_reduce(
    device: Any, out: Any, x: Any, rows: Rows, width: int, how: str = "sum"
) -> Launch:
    """out = the sum or the max of every rank's x, on the first `rows` rows of `width`.

    Raises:
        ValueError: the device is part of no group; `how` is neither "sum" nor "max".
    """
    if how not in HOW:
        raise ValueError(f"[all_reduce] how={how!r}: expected one of {HOW}")
    link = link_of(device)
    if device.kind == "cuda":
        return Launch(ALL_REDUCE, (x, out, int(rows) * width, how))
    args = (out, x, rows.count, *_words(device, link), width, HOW.index(how))
    return Launch(CPU_ALL_REDUCE, args)


def launch_gather_columns(
    device: Any, out: Any, x: Any, rows: Rows, widths: Sequence[int], scratch: Any = None
) -> Launch:
    """out = every rank's columns side by side, on the first `rows` rows.

    Args:
        widths: how many columns each rank has.
        scratch: on CUDA: of as many elements as out has in `rows` rows.

    Raises:
        ValueError: the device is part of no group, or of one with another number of ranks.
    """
    link = link_of(device)
    if len(widths) != link.ranks:
        raise ValueError(f"[gather_columns] widths {tuple(widths)} for {link.ranks} ranks")
    if device.kind == "cuda":
        return Launch(GATHER_COLUMNS, (x, out, scratch, int(rows), tuple(widths)))
    columns = device.asarray(np.array(widths, np.int64))
    return Launch(CPU_GATHER_COLUMNS, (out, x, rows.count, *_words(device, link), columns))


def link_of(device: Any) -> Any:
    """What joins the device to those of other ranks."""
    if device.link is None:
        raise ValueError(
            f"[distributed] the {device.name} device is part of no group of processes: connect it "
            "before what it runs with others is compiled"
        )
    return device.link


def _words(device: Any, link: Link) -> tuple[Any, ...]:
    """The link as kernels read it."""
    nbytes, flags = window_bytes(link.ranks, device.threads), LINE * link.ranks * device.threads
    if link.window.nbytes < nbytes or link.window.ctypes.data % LINE:
        raise ValueError(
            f"[distributed] a window of {link.window.nbytes} bytes: {link.ranks} ranks with "
            f"{device.threads} threads each need {nbytes}, on a cache line"
        )
    slots = link.window[flags:]
    return link.window[:flags], slots, SLOT, link.rank, link.ranks, link.abort
