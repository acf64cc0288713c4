"""Launches of a mixture of experts on CUDA: all experts in one launch of each kind.

    choose_experts   picks[r] = the experts that row r likes best, ascending, and their weights[r]
    list_pairs       lists[e] = the places of `picks` that have e, ascending, and how many
    expert_linear    y[place] = x[place // share] . weight[picks[place]]^T
    sum_experts      out[r] = sum over c of weights[r, c] * y[r * chosen + c]

picks int32 and weights f32 [rows, chosen]: a place is an index of them, flat; lists int32 [experts,
capacity], counts int64 [experts + 1], the last being all places; x [.., k] of what the weights
meet, y f32 [places, n], out f32 [rows, width].

Products are those of few rows: a block takes 16 outputs for up to 4 rows of one expert, on CUDA
cores, and blocks past an expert's rows return at once. No tensor cores yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES, DTYPES
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.experts import Expert, gates_and_ups
from nanocupy.kernels.kernel import CudaKernel, MakeLaunches, Shared
from nanocupy.kernels.linear import PackedWeight
from nanocupy.kernels.linear.cuda import RowMajorWeight
from nanocupy.kernels.silu_mul import cuda as silu_mul

MOST_CHOSEN = 32  # lanes of a warp
_LIST_BLOCK = 256
_BLOCK, _OUTPUTS, _TOGETHER = 128, 16, 4  # threads, outputs and rows of a product's block


class Places(NamedTuple):
    """The places of each expert.

    Attributes:
        lists: int32 [experts, capacity].
        counts: int64 [experts + 1], the number of each expert's, and of all.
    """

    lists: DeviceArray
    counts: DeviceArray


def places_of(device: Device, experts: int, capacity: int) -> Places:
    """Places that are to be listed."""
    return Places(
        device.empty((experts, capacity), np.int32), device.empty((experts + 1,), np.int64)
    )


class ExpertWeights(NamedTuple):
    """The same weight of every expert.

    Attributes:
        one: the first, for its shape and format.
        addresses: int64, of floats [experts]; of codes, scales and biases [3, experts].
        held: what lies there, kept alive.
    """

    one: RowMajorWeight
    addresses: DeviceArray
    held: Sequence[RowMajorWeight]


def weights_of(device: Device, experts: Sequence[PackedWeight]) -> ExpertWeights:
    """A table of the addresses of the experts' weights."""
    held = [w for w in experts if isinstance(w, RowMajorWeight)]
    assert len(held) == len(experts) > 0
    addresses = np.array([[view.data.ptr for view in w.views] for w in held], np.int64)
    return ExpertWeights(held[0], device.asarray(np.ascontiguousarray(addresses.T)), held)


class ExpertScratch(NamedTuple):
    """Working memory, one for all layers of one size."""

    picks: DeviceArray  # int32 [rows, chosen]
    weights: DeviceArray  # f32 [rows, chosen]
    places: Places
    both: DeviceArray  # f32 [places, 2 * hidden]: gate and up
    middle: DeviceArray  # [places, hidden], as `down` takes it
    y: DeviceArray  # f32 [places, width]


def expert_scratch(
    device: Device, rows: int, experts: int, chosen: int, down: PackedWeight
) -> ExpertScratch:
    return ExpertScratch(
        device.empty((rows, chosen), np.int32),
        device.empty((rows, chosen), np.float32),
        places_of(device, experts, rows),
        device.empty((rows * chosen, 2 * down.k), np.float32),
        device.empty((rows * chosen, down.k), DTYPES[down.activations]),
        device.empty((rows * chosen, down.n), np.float32),
    )


def prepare_experts(
    device: Device, out: DeviceArray, x: DeviceArray, logits: DeviceArray,
    experts: Sequence[Expert], most: int, shared: Shared, *, chosen: int, normalised: bool,
    logits_stride: int,
) -> MakeLaunches:  # fmt: skip
    """The launches of a mixture of experts. See `cpu.prepare_experts`."""
    down, count = experts[0].down, len(experts)
    size = (most, count, chosen, down)
    key = ("experts", *size[:3], down.k, down.n, down.activations)
    scratch: ExpertScratch = shared(key, lambda: expert_scratch(device, *size))
    gate_up = [weights_of(device, weights) for weights in gates_and_ups(experts)]
    downs = weights_of(device, [expert.down for expert in experts])
    both, places = scratch.both.reshape(-1), scratch.places

    def launches(rows: Rows) -> Iterator[Launch]:
        yield choose_experts(
            *(scratch.picks, scratch.weights, logits, rows),
            experts=count,
            normalised=normalised,
            logits_stride=logits_stride,
        )
        yield list_pairs(places, scratch.picks, rows, chosen=chosen, picks_stride=chosen)
        start = 0
        for weights in gate_up:
            place = {"share": chosen, "out_stride": 2 * down.k}
            yield expert_linear(both[start:], x, weights, places, rows, **place)
            start += weights.one.n
        pairs = Rows(int(rows) * chosen, places.counts[count:])
        yield silu_mul.launch(
            *(device, scratch.middle, both, both[down.k :], pairs, down.k),
            gate_stride=2 * down.k,
            up_stride=2 * down.k,
        )
        place = {"share": 1, "out_stride": down.n}
        yield expert_linear(scratch.y, scratch.middle, downs, places, rows, **place)
        yield sum_experts(out, scratch.y, scratch.weights, rows)

    return launches


def prepare_switch(
    device: Device, out: DeviceArray, x: DeviceArray, picks: DeviceArray,
    weights: Sequence[PackedWeight], most: int, shared: Shared, *, chosen: int, share: int,
    picks_stride: int,
) -> MakeLaunches:  # fmt: skip
    """The launches of a switch. See `cpu.prepare_switch`."""
    table, size = weights_of(device, weights), (len(weights), most * chosen)
    places = shared(("places", *size), lambda: places_of(device, *size))

    def launches(rows: Rows) -> Iterator[Launch]:
        yield list_pairs(places, picks, rows, chosen=chosen, picks_stride=picks_stride)
        each = Rows(int(rows) * chosen, rows.count)  # a row may name an expert again
        yield expert_linear(out, x, table, places, each, share=share, out_stride=table.one.n)

    return launches


# ---- the kernels


def choose_experts(
    picks: DeviceArray, weights: DeviceArray, logits: DeviceArray, rows: Rows, *, experts: int,
    normalised: bool, logits_stride: int,
) -> Launch:  # fmt: skip
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


def list_pairs(
    places: Places, picks: DeviceArray, rows: Rows, *, chosen: int, picks_stride: int
) -> Launch:
    """Args: chosen: experts of each row; picks_stride: elements from row to row."""
    experts, capacity = places.lists.shape
    sizes = np.int32(chosen), np.int32(capacity), np.int64(picks_stride)
    args = (places.lists, places.counts, picks, rows.count, *sizes)
    kernel = CudaKernel("experts", f"list_pairs<{_LIST_BLOCK}>")
    return Launch(kernel, args, (experts, 1, 1), _LIST_BLOCK)


def expert_linear(
    out: DeviceArray, x: DeviceArray, weights: ExpertWeights, places: Places, rows: Rows, *,
    share: int, out_stride: int,
) -> Launch:  # fmt: skip
    """out[place] = x[place // share] . its expert's weight^T.

    Args:
        out: f32, rows of n elements that lie `out_stride` apart; x: [.., k].
        rows: the most places that an expert can have.
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


def sum_experts(out: DeviceArray, y: DeviceArray, weights: DeviceArray, rows: Rows) -> Launch:
    """Args: weights [rows, chosen]; y [rows * chosen, width]."""
    width = y.shape[1]
    args = (out, y, weights, rows.count, np.int32(width), np.int32(weights.shape[1]))
    return cuda_grid.elementwise(CudaKernel("experts", "sum_experts"), args, rows, width)
