"""A mixture of experts on CUDA: all experts in one launch of each kind.

    choose_experts   picks[r] = the experts that row r likes best, ascending, and their weights[r]
    list_pairs       lists[e] = the places of `picks` that have e, ascending, and how many
    expert_linear    y[place] = x[place // share] . weight[picks[place]]^T
    sum_experts      out[r] = sum over c of weights[r, c] * y[r * chosen + c]

logits f32 [rows, experts]; picks int32 and weights f32 [rows, chosen]: a place is an index of them,
flat; lists int32 [experts, capacity], counts int64 [experts + 1], the last being all places; x
[.., k] of what the weights meet, y f32 [places, n], out f32 [rows, width]. What is chosen, with
which weights and in which order it is added up is as `kernels.experts` says; of a row with a logit
that is NaN all weights are NaN.

Products are those of few rows: a block takes 16 outputs for up to 4 rows of one expert, on CUDA
cores, and blocks past an expert's rows return at once. No tensor cores yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import C_TYPES, CudaKernel
from nanocupy.kernels.linear import PackedWeight
from nanocupy.kernels.linear.cuda import RowMajorWeight

MOST_CHOSEN = 32  # lanes of a warp
_LIST_BLOCK = 256
_BLOCK, _OUTPUTS, _TOGETHER = 128, 16, 4  # threads, outputs and rows of a product's block


class Places(NamedTuple):
    """Who goes where.

    Attributes:
        lists: int32 [experts, capacity], places of each expert.
        counts: int64 [experts + 1], how many, and how many in all.
    """

    lists: Any
    counts: Any


class Weights(NamedTuple):
    """The same weight of every expert.

    Attributes:
        one: the first, for its shape and format.
        addresses: int64, of floats [experts]; of codes, scales and biases [3, experts].
        held: what lies there, kept alive.
    """

    one: RowMajorWeight
    addresses: Any
    held: Sequence[RowMajorWeight]


def weights_of(device: Any, experts: Sequence[PackedWeight]) -> Weights:
    """A table of where the experts' weights are."""
    held = [w for w in experts if isinstance(w, RowMajorWeight)]
    assert len(held) == len(experts) > 0
    addresses = np.array([[view.data.ptr for view in w.views] for w in held], np.int64)
    return Weights(held[0], device.asarray(np.ascontiguousarray(addresses.T)), held)


def launch_choose(
    device: Any,
    picks: Any,
    weights: Any,
    logits: Any,
    rows: Rows,
    *,
    experts: int,
    normalised: bool,
    logits_stride: int,
) -> Launch:
    """Args: logits_stride in elements.

    Raises:
        NotImplementedError: more are chosen than a warp has lanes.
    """
    chosen = picks.shape[1]
    if chosen > MOST_CHOSEN:
        raise NotImplementedError(f"[experts] {chosen} chosen: up to {MOST_CHOSEN} on CUDA")
    sizes = map(np.int32, (experts, chosen, normalised))
    args = (picks, weights, logits, rows.count, *sizes, np.int64(logits_stride))
    return Launch(CudaKernel("experts", "choose_experts"), args, (int(rows), 1, 1), 32)


def launch_list(
    device: Any, places: Places, picks: Any, rows: Rows, chosen: int, *, picks_stride: int
) -> Launch:
    """Args: chosen, picks_stride: of each row, and elements from row to row."""
    experts, capacity = places.lists.shape
    sizes = np.int32(chosen), np.int32(capacity), np.int64(picks_stride)
    args = (places.lists, places.counts, picks, rows.count, *sizes)
    kernel = CudaKernel("experts", f"list_pairs<{_LIST_BLOCK}>")
    return Launch(kernel, args, (experts, 1, 1), _LIST_BLOCK)


def launch_product(
    device: Any,
    out: Any,
    x: Any,
    weights: Weights,
    places: Places,
    rows: Rows,
    *,
    share: int,
    out_stride: int,
) -> Launch:
    """out[place] = x[place // share] . its expert's weight^T.

    Args:
        out: f32, rows of n elements that lie `out_stride` apart; x: [.., k].
        rows: as many places an expert can have.
    """
    one, experts, capacity = weights.one, len(weights.held), places.lists.shape[1]
    together = _TOGETHER if rows > 1 else 1
    if one.format.bits:
        types = f"{C_TYPES[x.dtype]}, {C_TYPES[one.scales.dtype]}, {one.format.bits}, {together}"
        kernel = CudaKernel("experts", f"expert_affine<{types}>")
        shape: tuple[int, ...] = one.n, one.k, one.format.group
    else:
        kernel = CudaKernel("experts", f"expert_linear<{C_TYPES[x.dtype]}, {together}>")
        shape = one.n, one.k
    args = (
        *(out, x, weights.addresses, places.lists, places.counts),
        *map(np.int32, (*shape, capacity, share)),
        *map(np.int64, (x.shape[1], out_stride)),
    )
    grid = (-(-one.n // _OUTPUTS), -(-int(rows) // together), experts)
    return Launch(kernel, args, grid, _BLOCK)


def launch_sum(device: Any, out: Any, y: Any, weights: Any, rows: Rows) -> Launch:
    """Args: weights [rows, chosen]; y [rows * chosen, width]."""
    width = y.shape[1]
    args = (out, y, weights, rows.count, np.int32(width), np.int32(weights.shape[1]))
    return cuda_grid.elementwise(CudaKernel("experts", "sum_experts"), args, rows, width)
