"""Sampling a token from each row of logits (`kernels.sample`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nanocupy.core.recorder.arrays import array, record
from nanocupy.core.recorder.graph import Node, Op, item, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.dtypes import float32, int32


@dataclass(frozen=True, eq=False)
class SamplingBuffers:
    """Static inputs and outputs of `sample`, one line a sampled row; see `kernels.sample`."""

    floats: Any  # f32 [samples, 4]: temperature, top_p, min_p, uniform
    top_k: Any  # int32 [samples]
    target: Any  # int32 [samples]
    edit_start: Any  # int32 [samples + 1]
    edits: Any  # int32 [edits, 3]: id, then mul and add as the bits of an f32
    token: Any  # int32 [samples]: what was drawn
    lse: Any  # f32 [samples]: the logsumexp of the row


def _lower_sample(to: Lowering, node: Node) -> None:
    (logits,) = to.inputs(node)
    size, rows = width(node.inputs[0].shape), to.rows(node)
    scratch = to.shared(
        ("sample", int(rows), size), lambda: to.launches.sample.scratch(to.device, int(rows), size)
    )
    outs = to.of(node, 0).view, to.of(node, 1).view
    how = {"vocabulary": size, "scratch": scratch}
    to.add(
        rows,
        lambda rows: to.launches.sample.launch(
            to.device, *outs, logits.view, node.attrs["buffers"], rows, **how
        ),
    )


SAMPLE = Op(
    "sample",
    lambda logits, **_: [((logits[0][0],), int32), ((logits[0][0],), float32)],
    None,
    _lower_sample,
)


def sample(logits: array, buffers: SamplingBuffers) -> tuple[array, array]:
    """(token int32 [rows], logsumexp f32 [rows]) of f32 logits [rows, ..., vocabulary].

    Both lie in the buffers, so that one copy brings them to the host.
    """
    into = (buffers.token, buffers.lse)
    node = record(SAMPLE, logits, buffers=buffers, into=into).node
    return array(item(node, 0)), array(item(node, 1))
