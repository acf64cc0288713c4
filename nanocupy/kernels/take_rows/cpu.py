"""The launch of take_rows on a CPU."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.quantize import Codes
from nanocupy.kernels.quantize.cpu import rounding

KERNEL = CpuKernel("take_rows:take_rows")


class TakeRowsArgs(NamedTuple):
    """Arguments of the kernel before `Rounding`; rows have no gaps."""

    out: DeviceArray
    x: DeviceArray  # f32 [limit, width]
    indices: DeviceArray  # int32
    rows: DeviceArray
    limit: int
    width: int


def launch(
    device: Device, out: DeviceArray, x: DeviceArray, index: DeviceArray, rows: Rows, *,
    codes: Codes | None = None,
) -> Launch:  # fmt: skip
    """out[i] = x[index[i]] for i below the number of `rows`.

    Args:
        codes: how rows are rounded, out being uint8. Default: to the dtype of out.
    """
    words = out.view(np.float32) if out.dtype == np.int32 else out  # ints are copied as they are
    limit, width = x.shape
    finish = rounding(words, codes, width)
    return Launch(KERNEL, (*TakeRowsArgs(out, x, index, rows.count, limit, width), *finish))
