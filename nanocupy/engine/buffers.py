"""The inputs and outputs of a step: everything a Program reads besides weights and pages.

All of it lies in one staging buffer, in the order below, so that one copy brings it to the device:
what is short and always needed first, and the edits, of which there are mostly none, last.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from nanocupy.core import Rows
from nanocupy.core.recorder.sampling import SamplingBuffers
from nanocupy.device.protocols import Device
from nanocupy.engine.buckets import Bucket
from nanocupy.engine.kv_cache import KVCacheConfig
from nanocupy.kernels.attention import RowSplit

MAX_EDITS = 2048  # changed logits a row, beyond one for each token of a sequence
ALIGN = 64  # bytes, where each part starts

Part = tuple[str, tuple[int, ...], Any]


class Packed:
    """Named arrays, one after another in a staging buffer.

    Attributes:
        host: the arrays on the host, by name.
        device: the same on the device.
        starts: where each begins, in bytes.
    """

    def __init__(self, device: Device, parts: Sequence[Part]) -> None:
        self.starts: dict[str, int] = {}
        end = 0
        for name, shape, dtype in parts:
            self.starts[name] = end
            end += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // ALIGN) * ALIGN
        self.buffer = device.staging_buffer(end)
        self.host, self.device = (
            SimpleNamespace(**{n: _view(memory, self.starts[n], s, d) for n, s, d in parts})
            for memory in (self.buffer.host, self.buffer.device)
        )


def _view(memory: Any, start: int, shape: tuple[int, ...], dtype: Any) -> Any:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return memory[start : start + nbytes].view(dtype).reshape(shape)


class StepBuffers:
    """The buffers of a step.

    Args:
        most: the largest step there is.
        sequences: how many have a line in the block tables.
        vocabulary: tokens; a row changes the logit of each once at most.

    Attributes:
        rows, samples: symbolic numbers of rows, of a step and of what is sampled.
        split: for attention, on devices that split decode and prefill rows; else None.
        sampling: for `core.recorder.sampling.sample`.
        host, device: the arrays of `_parts` by name, on both sides.
        answers: on the host: tokens int32 and logsumexps f32, [samples], by name.
    """

    def __init__(
        self, device: Device, most: Bucket, sequences: int, kv: KVCacheConfig, vocabulary: int
    ) -> None:
        tables = (sequences, -(-kv.max_model_len // kv.block_size))
        edits = most.samples * min(kv.max_model_len + MAX_EDITS, vocabulary)
        answers = [("token", (most.samples,), np.int32), ("lse", (most.samples,), np.float32)]
        self._in = Packed(device, _parts(most, tables, edits))
        self._out = Packed(device, answers)
        self.host, self.device, self.answers = self._in.host, self._in.device, self._out.host
        counts = [self.device.counts[i : i + 1] for i in range(4)]
        self.rows, self.samples = Rows(most.rows, counts[0]), Rows(most.samples, counts[1])
        self.split = None
        if most.decode_rows:
            decode, tiles = Rows(most.decode_rows, counts[2]), Rows(most.prefill_tiles, counts[3])
            to = self.device
            self.split = RowSplit(to.decode_rows, decode, to.prefill_tiles, tiles)
        self.sampling = SamplingBuffers(
            **{name: getattr(self.device, name) for name in _SAMPLING},
            token=self._out.device.token,
            lse=self._out.device.lse,
        )

    def send(self, sequences: int, edits: int) -> None:
        """Copy what is written to the device: the tables of `sequences`, and the edits if any."""
        if edits:
            end = self._in.starts["edits"] + 12 * edits
        else:
            end = self._in.starts["block_tables"] + sequences * self.host.block_tables[0].nbytes
        self._in.buffer.send(end)

    def receive(self) -> None:
        """Wait for the step and its answers."""
        self._out.buffer.receive(self._out.buffer.host.nbytes)


_SAMPLING = ("floats", "top_k", "target", "edit_start", "edits")


def _parts(most: Bucket, tables: tuple[int, int], edits: int) -> list[Part]:
    rows, samples = most.rows, most.samples
    return [
        ("counts", (4,), np.int64),  # as in a Bucket
        ("tokens", (rows,), np.int32),
        ("positions", (rows,), np.int32),
        ("sequences", (rows,), np.int32),
        ("slots", (rows,), np.int32),
        ("decode_rows", (most.decode_rows,), np.int32),
        ("prefill_tiles", (most.prefill_tiles, 4), np.int32),
        ("sample_rows", (samples,), np.int32),
        ("floats", (samples, 4), np.float32),
        ("top_k", (samples,), np.int32),
        ("target", (samples,), np.int32),
        ("edit_start", (samples + 1,), np.int32),
        ("block_tables", tables, np.int32),
        ("edits", (edits, 3), np.int32),
    ]
