"""What a mixture of experts needs around its linears: choose, list, add.

    choose_experts   weights[r, e] = softmax(logits[r])[e] for the `chosen` largest, else 0; out = 0
    list_rows        for each expert the rows that chose it, ascending, and how many
    add_rows         out[rows[i]] += weights[rows[i], expert] * y[i]

and, where somebody else has chosen:

    list_places      lists[e] = the places of picks (its indices, flat) that have e, ascending; how
                     many; and sources[e] = those places // share
    put_rows         out[index[i]] = y[i]

logits, weights f32 [rows, experts]; out f32 [rows, width]; lists int32 [experts, capacity], counts
int64 [experts]; y f32 [count, width]. Of equal logits the lower expert is chosen; `normalised`:
weights are divided by their sum. Experts add in ascending order, each by one fma, so a row depends
on nothing but itself. A row with a logit that is NaN has NaN weights. CPU only: on CUDA see
`experts_cuda`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import CpuKernel

CHOOSE, LIST, ADD, LIST_PLACES, PUT = (
    CpuKernel(f"experts:{name}")
    for name in ("choose_experts", "list_rows", "add_rows", "list_places", "put_rows")
)


def choose_reference(logits: np.ndarray, chosen: int, normalised: bool) -> np.ndarray:
    """f32 [rows, experts] -> weights f32 [rows, experts]."""
    e = np.exp(logits - logits.max(-1, keepdims=True))
    order = np.argsort(-logits, axis=-1, kind="stable")[..., :chosen]
    mask = np.zeros(logits.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    weights = np.where(mask, e, np.float32(0))
    total = (weights if normalised else e).sum(-1, keepdims=True)
    return np.asarray(weights / total, np.float32)


def launch_choose(
    device: Any,
    weights: Any,
    out: Any,
    logits: Any,
    rows: Rows,
    *,
    experts: int,
    width: int,
    chosen: int,
    normalised: bool,
    logits_stride: int,
) -> Launch:
    """Args: logits_stride in elements."""
    arrays = (weights, out, logits, rows.count)
    return Launch(CHOOSE, (*arrays, experts, width, chosen, int(normalised), 4 * logits_stride))


def launch_list(device: Any, lists: Any, counts: Any, weights: Any, rows: Rows) -> Launch:
    experts, capacity = lists.shape
    return Launch(LIST, (lists, counts, weights, rows.count, experts, capacity))


def launch_add(
    device: Any, out: Any, y: Any, index: Any, weights: Any, expert: int, rows: Rows, width: int
) -> Launch:
    """Args: weights [rows, experts]; rows: how many of `index`."""
    args = (out, y, index, weights, rows.count, weights.shape[1], expert, width)
    return Launch(ADD, args)


def launch_list_places(
    device: Any,
    lists: Any,
    sources: Any,
    counts: Any,
    picks: Any,
    rows: Rows,
    chosen: int,
    share: int,
    *,
    picks_stride: int,
) -> Launch:
    """Args: picks int32, `chosen` of each row; lists, sources int32 [experts, capacity]."""
    experts, capacity = lists.shape
    place = (experts, capacity, chosen, 4 * picks_stride, share)
    return Launch(LIST_PLACES, (lists, sources, counts, picks, rows.count, *place))


def launch_put(device: Any, out: Any, y: Any, index: Any, rows: Rows, width: int) -> Launch:
    """out[index[i]] = y[i] for i below the number of `rows`; both without gaps."""
    return Launch(PUT, (out, y, index, rows.count, width, 4 * width))
