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

from nanocupy.device.protocols import Device

HOW = ("sum", "max")


def all_reduce_reference(parts: Sequence[np.ndarray], how: str = "sum") -> np.ndarray:
    """Every rank's x, one after the other."""
    return np.asarray(reduce(np.add if how == "sum" else np.maximum, parts))


def gather_columns_reference(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Every rank's x [rows, widths[rank]] -> [rows, sum(widths)]."""
    return np.concatenate(parts, axis=-1)


def check_reduction(how: str) -> None:
    """Raise ValueError unless all_reduce knows it."""
    if how not in HOW:
        raise ValueError(f"[all_reduce] how={how!r}: expected one of {HOW}")


def check_widths(device: Device, widths: Sequence[int]) -> None:
    """Raise ValueError unless gather_columns has a width for each rank of the device's group."""
    link = link_of(device)
    if len(widths) != link.ranks:
        raise ValueError(f"[gather_columns] widths {tuple(widths)} for {link.ranks} ranks")


def link_of(device: Device) -> Any:
    """The device's connection with those of other ranks. Raises ValueError if there is none."""
    if device.link is None:
        raise ValueError(
            f"[distributed] the {device.name} device is part of no group of processes: connect it "
            "before what it runs with others is compiled"
        )
    return device.link
