"""A mixture of experts: each row goes through a few of many gated MLPs, and their results add up.

    weights[r, e] = softmax(logits[r])[e] for the `chosen` largest, else 0
    out[r] = sum over e of weights[r, e] * down_e(silu(gate_e(x[r])) * up_e(x[r]))

and a switch, a linear of each expert where somebody else has chosen: out[p] = x[p // share] .
weight_e^T with e = picks[p], p a flat index of picks [rows, chosen].

logits, weights f32 [rows, experts]; out f32 [rows, width]. Of equal logits the lower expert is
chosen; `normalised`: weights are divided by their sum. Experts add in ascending order, each by one
fma, so a row depends on nothing but itself. All weights of a row with a logit that is NaN are NaN.

An expert's linears are launched for the rows that chose it; how many they are is known on the
device only, as the number of rows of a step is. On a CPU an expert's linears are launches of their
own; on CUDA one launch is for all experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nanocupy.kernels.linear import PackedWeight


class Expert(NamedTuple):
    """The weights of one gated MLP; gate and up may lie side by side."""

    gate: PackedWeight
    up: PackedWeight
    down: PackedWeight


def gates_and_ups(experts: Sequence[Expert]) -> list[list[PackedWeight]]:
    """As one weight of each expert where they lie side by side, else as two."""
    if all(expert.up.follows(expert.gate) for expert in experts):
        return [[expert.gate.joined(expert.up) for expert in experts]]
    return [[expert.gate for expert in experts], [expert.up for expert in experts]]


def choose_reference(logits: np.ndarray, chosen: int, normalised: bool) -> np.ndarray:
    """f32 [rows, experts] -> weights f32 [rows, experts]."""
    e = np.exp(logits - logits.max(-1, keepdims=True))
    order = np.argsort(-logits, axis=-1, kind="stable")[..., :chosen]
    mask = np.zeros(logits.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    weights = np.where(mask, e, np.float32(0))
    total = (weights if normalised else e).sum(-1, keepdims=True)
    return np.asarray(weights / total, np.float32)
