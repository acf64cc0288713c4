"""The launch of sample on a CPU, and its working memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.sample import check_vocabulary

SAMPLE = CpuKernel("sample:sample")
BLOCK = 64  # tokens
TALLY_BYTES = 256 * 8  # a weight for each digit


class SampleArgs(NamedTuple):
    """Arguments of the kernel; see `launch`."""

    token: DeviceArray
    lse: DeviceArray
    logits: DeviceArray
    rows: DeviceArray
    floats: DeviceArray
    top_k: DeviceArray
    target: DeviceArray
    edit_start: DeviceArray
    edits: DeviceArray
    scratch: DeviceArray
    vocabulary: int


def scratch(device: Device, rows: int, vocabulary: int) -> DeviceArray:
    """Working memory for `launch`: of each thread, as `cpu_body.py` describes it.

    Raises:
        ValueError: the vocabulary is not 1 to 2^20 tokens.
    """
    check_vocabulary(vocabulary)
    padded = -(-vocabulary // BLOCK) * BLOCK
    return device.empty((device.threads, 2 * 4 * padded + TALLY_BYTES), np.uint8)


def launch(
    device: Device, token: DeviceArray, lse: DeviceArray, logits: DeviceArray, buffers: Any,
    rows: Rows, *, vocabulary: int, scratch: DeviceArray,
) -> Launch:  # fmt: skip
    """Sample the first `rows` rows.

    The kernel fails with code 1 on an edit's id or a target that is not below the vocabulary.

    Args:
        token: int32 [rows].
        lse: f32 [rows].
        logits: f32 [rows, vocabulary].
        buffers: floats f32 [rows, 4]: temperature, top_p, min_p, uniform (in [0, 1)); top_k,
            target int32 [rows]; edit_start int32 [rows + 1], where each row's edits begin in
            edits int32 [edits, 3] (see `pack_edits`). The ids of a row are distinct.
        scratch: of the function `scratch`.
    """
    settings = (buffers.floats, buffers.top_k, buffers.target, buffers.edit_start, buffers.edits)
    args = SampleArgs(token, lse, logits, rows.count, *settings, scratch, vocabulary)
    return Launch(SAMPLE, args)
