"""The launch of sample on CUDA, and its working memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CudaKernel
from nanocupy.kernels.sample import check_vocabulary


def scratch(device: Device, rows: int, vocabulary: int) -> DeviceArray:
    """Working memory for `launch` of at most `rows` rows: their probabilities.

    Raises:
        ValueError: the vocabulary is not 1 to 2^20 tokens.
    """
    check_vocabulary(vocabulary)
    return device.empty((rows, vocabulary), np.float32)


def launch(
    device: Device, token: DeviceArray, lse: DeviceArray, logits: DeviceArray, buffers: Any,
    rows: Rows, *, vocabulary: int, scratch: DeviceArray,
) -> Launch:  # fmt: skip
    """Sample the first `rows` rows. See `cpu.launch`.

    An edit whose id is not below the vocabulary is ignored; such a target gives token -1.
    """
    settings = (buffers.floats, buffers.top_k, buffers.target, buffers.edit_start, buffers.edits)
    args = (token, lse, logits, rows.count, *settings, scratch, np.int32(vocabulary))
    threads = 128 if vocabulary <= 4096 else 1024
    return Launch(CudaKernel("sample", f"sample<{threads}>"), args, (int(rows), 1, 1), threads)
