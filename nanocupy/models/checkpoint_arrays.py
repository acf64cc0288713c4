"""Tensors of a checkpoint as lazy arrays."""

from __future__ import annotations

from collections.abc import Container

from nanocupy.checkpoint import Checkpoint
from nanocupy.checkpoint.header import DTYPES
from nanocupy.core import array
from nanocupy.core.recorder.arrays import record, shared
from nanocupy.core.recorder.graph import Op

_READ = Op("read", lambda *, spec, read: spec, lambda *, spec, read: read())


def checkpoint_array(checkpoint: Checkpoint, name: str) -> array:
    """A tensor: a view of the mapped file, or converted from other tensors when it is evaluated."""
    read = checkpoint.reader(name)
    if not checkpoint.is_derived(name):
        return shared(read())
    info = checkpoint.info(name)
    return record(_READ, spec=(info.shape, DTYPES[info.dtype]), read=read)


def unused_biases(checkpoint: Checkpoint, expected: Container[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of biases of zeros, which AutoGPTQ wrote for layers that have none."""
    quantization = checkpoint.config.quantization
    names = (n for n in checkpoint.names() if n.endswith(".bias") and n not in expected)
    return {
        name: checkpoint.info(name).shape
        for name in names
        if quantization
        and name.removesuffix(".bias") in quantization.overrides
        and not checkpoint.read(name).any()
    }
