"""Tensors of a checkpoint as arrays that are read when they are wanted."""

from __future__ import annotations

from collections.abc import Container

from nanocupy.checkpoint import Checkpoint
from nanocupy.checkpoint.reader import DTYPES
from nanocupy.core import array
from nanocupy.core.recorder.arrays import record, shared
from nanocupy.core.recorder.graph import Op

_READ = Op("read", lambda *, spec, read: spec, lambda *, spec, read: read())


def checkpoint_array(checkpoint: Checkpoint, name: str) -> array:
    """The tensor: over the mapped file, or made of what is there when it is evaluated."""
    read = checkpoint.later(name)
    if not checkpoint.is_made(name):
        return shared(read())
    info = checkpoint.info(name)
    return record(_READ, spec=(info.shape, DTYPES[info.dtype]), read=read)


def unused_biases(checkpoint: Checkpoint, expected: Container[str]) -> dict[str, tuple[int, ...]]:
    """Biases of zeros, which AutoGPTQ wrote for layers that have none."""
    how = checkpoint.config.quantization
    names = (n for n in checkpoint.names() if n.endswith(".bias") and n not in expected)
    return {
        name: checkpoint.info(name).shape
        for name in names
        if how and name.removesuffix(".bias") in how.overrides and not checkpoint.read(name).any()
    }
