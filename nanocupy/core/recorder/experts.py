"""A mixture of experts (`kernels.experts`), packed or dense, and a linear of each expert."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nanocupy.core.recorder.arrays import array, record
from nanocupy.core.recorder.casting import astype
from nanocupy.core.recorder.graph import Node, Op, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.core.recorder.packed import QUANTIZE
from nanocupy.dtypes import DTYPES
from nanocupy.kernels import experts as kernel
from nanocupy.kernels.elementwise import silu_reference
from nanocupy.kernels.experts import Expert
from nanocupy.kernels.linear import PackedWeight


def _lower_experts(to: Lowering, node: Node) -> None:
    source, logits = node.inputs
    rows, place, size = to.rows(node), to.of(logits), width(source.shape)
    x = to.contiguous(source, to.of(source))[: int(rows) * size].reshape(-1, size)
    launches = to.launches.experts.prepare_experts(
        *(to.device, to.of(node).view, x, place.view, node.attrs["experts"], int(rows), to.shared),
        logits_stride=place.stride,
        **node.attrs["choice"],
    )
    to.add(rows, launches)


EXPERTS = Op(
    "experts",
    lambda x, logits, *, experts, choice, shape: (shape, np.dtype(np.float32)),
    None,
    _lower_experts,
    row_wise=True,
)


def packed_experts(
    x: array, logits: array, experts: Sequence[Expert], chosen: int, normalised: bool
) -> array:
    """The sum of the chosen experts' results, each times its weight. x [rows, ..., dims] f32.

    Args:
        logits: f32 [rows, ..., experts].
        chosen, normalised: see `kernels.experts`.
    """
    gate, shape = experts[0].gate, x.shape
    if any(e.gate.codes != gate.codes or e.down.codes != experts[0].down.codes for e in experts):
        raise NotImplementedError("[experts] that are quantised differently in one layer")
    if gate.codes:
        x = record(QUANTIZE, x, codes=gate.codes)
    else:
        x = astype(x, DTYPES[gate.activations])
    choice = {"chosen": chosen, "normalised": normalised}
    return record(EXPERTS, x, logits, experts=tuple(experts), choice=choice, shape=shape)


def _dense(
    x: np.ndarray, logits: np.ndarray, *parts: np.ndarray, chosen: int, normalised: bool
) -> np.ndarray:
    weights = kernel.choose_reference(logits, chosen, normalised)
    out = np.zeros_like(x)
    for number, (gate, up, down) in enumerate(
        zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ):
        middle = silu_reference(x @ gate.T) * (x @ up.T)
        out += weights[..., number, None] * (middle @ down.T)
    return out


_DENSE = Op("dense_experts", lambda x, *_, **how: x, _dense)


def dense_experts(
    x: array,
    logits: array,
    experts: Sequence[tuple[array, ...]],
    chosen: int,
    normalised: bool,
) -> array:
    """The same of weights that are not packed: all experts for all rows, by NumPy."""
    parts = [part for expert in experts for part in expert]
    return record(_DENSE, x, logits, *parts, chosen=chosen, normalised=normalised)


# ---- one linear of each expert, where somebody else has chosen


def _lower_switch(to: Lowering, node: Node) -> None:
    (source, index), weights = node.inputs, node.attrs["weights"]
    rows, picks, size = to.rows(node), to.of(index), weights[0].k
    chosen, vectors = width(index.shape), width(source.shape) // size
    if chosen % vectors or index.dtype.itemsize != 4 or weights[0].codes:
        raise NotImplementedError(
            f"[gather_mm] {source.shape} with indices {index.dtype} {index.shape} in a Program"
        )
    x = to.contiguous(source, to.of(source))[: int(rows) * vectors * size].reshape(-1, size)
    launches = to.launches.experts.prepare_switch(
        *(to.device, to.of(node).view, x, picks.view, weights, int(rows), to.shared),
        chosen=chosen,
        share=chosen // vectors,
        picks_stride=picks.stride,
    )
    to.add(rows, launches)


SWITCH = Op(
    "switch_linear",
    lambda x, index, *, weights, shape: (shape, np.dtype(np.float32)),
    None,
    _lower_switch,
    row_wise=True,
)


def switch_linear(
    x: array, index: array, weights: Sequence[PackedWeight], shape: Sequence[int]
) -> array:
    """x [rows, ..., k] by the weights [n, k] that index [rows, ..., chosen] names.

    A row has one vector for all that it has chosen, or one for each.

    Args:
        shape: of the result: [rows, ..., chosen, ..., n].
    """
    x = astype(x, DTYPES[weights[0].activations])
    return record(SWITCH, x, index, weights=tuple(weights), shape=tuple(shape))
