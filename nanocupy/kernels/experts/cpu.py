"""Launches of a mixture of experts on a CPU: those of each expert, one expert after the other.

    choose_experts   weights[r, e] = softmax(logits[r])[e] for the `chosen` largest, else 0; out = 0
    list_rows        for each expert the rows that chose it, ascending, and how many
    add_rows         out[rows[i]] += weights[rows[i], expert] * y[i]
    list_places      lists[e] = the places of picks that have e, ascending; how many; and
                     sources[e] = those places // share
    put_rows         out[places[i]] = y[i]

lists int32 [experts, capacity], counts int64 [experts]; y f32 [count, width].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import DTYPES
from nanocupy.kernels.experts import Expert, gates_and_ups
from nanocupy.kernels.kernel import CpuKernel, MakeLaunches, Shared
from nanocupy.kernels.linear import PackedWeight
from nanocupy.kernels.linear import cpu as linear
from nanocupy.kernels.linear.cpu import PanelWeight
from nanocupy.kernels.silu_mul import cpu as silu_mul
from nanocupy.kernels.take_rows import cpu as take_rows

CHOOSE, LIST_ROWS, ADD_ROWS, LIST_PLACES, PUT_ROWS = (
    CpuKernel(f"experts:{name}")
    for name in ("choose_experts", "list_rows", "add_rows", "list_places", "put_rows")
)


class ChooseArgs(NamedTuple):
    """Arguments of choose_experts; the stride in bytes."""

    weights: DeviceArray
    out: DeviceArray
    logits: DeviceArray
    rows: DeviceArray
    experts: int
    width: int
    chosen: int
    normalised: int
    logits_stride: int


class ListRowsArgs(NamedTuple):
    """Arguments of list_rows."""

    lists: DeviceArray
    counts: DeviceArray
    weights: DeviceArray
    rows: DeviceArray
    experts: int
    capacity: int


class AddRowsArgs(NamedTuple):
    """Arguments of add_rows."""

    out: DeviceArray
    y: DeviceArray
    numbers: DeviceArray  # int32, of rows of out
    weights: DeviceArray
    rows: DeviceArray  # of y
    experts: int
    expert: int
    width: int


class ListPlacesArgs(NamedTuple):
    """Arguments of list_places; the stride in bytes."""

    lists: DeviceArray
    sources: DeviceArray
    counts: DeviceArray
    picks: DeviceArray
    rows: DeviceArray
    experts: int
    capacity: int
    chosen: int
    picks_stride: int
    share: int


class PutRowsArgs(NamedTuple):
    """Arguments of put_rows."""

    out: DeviceArray
    y: DeviceArray
    places: DeviceArray
    rows: DeviceArray  # of y
    width: int


class ExpertScratch(NamedTuple):
    """Working memory, one for all experts of all layers of one size."""

    weights: DeviceArray  # f32 [rows, experts]
    lists: DeviceArray  # int32 [experts, rows]
    counts: DeviceArray  # int64 [experts]
    x: DeviceArray  # the rows of an expert
    both: DeviceArray  # f32 [rows, 2 * hidden]: gate and up
    middle: DeviceArray  # rounded as `down` takes it
    y: DeviceArray  # f32 [rows, width]


def expert_scratch(
    device: Device, rows: int, experts: int, words: int, down: PackedWeight
) -> ExpertScratch:
    """Args: words: of a row of x."""
    if codes := down.codes:
        middle = device.empty((rows, codes.row_bytes(down.k)), np.uint8)
    else:
        middle = device.empty((rows, down.k), DTYPES[down.activations])
    return ExpertScratch(
        device.empty((rows, experts), np.float32),
        device.empty((experts, rows), np.int32),
        device.empty((experts,), np.int64),
        device.empty((rows, words), np.float32),
        device.empty((rows, 2 * down.k), np.float32),
        middle,
        device.empty((rows, down.n), np.float32),
    )


def prepare_experts(
    device: Device, out: DeviceArray, x: DeviceArray, logits: DeviceArray,
    experts: Sequence[Expert], most: int, shared: Shared, *, chosen: int, normalised: bool,
    logits_stride: int,
) -> MakeLaunches:  # fmt: skip
    """The launches of a mixture of experts.

    Args:
        out: f32 [rows, width]; x: [rows, k], as the experts' gates take it, without gaps.
        logits: f32 [rows, experts]; logits_stride: elements from row to row.
        most: rows that there can be.
        chosen, normalised: experts of a row, and whether their weights sum up to 1.
    """
    x, down = _words(x), experts[0].down
    size = (most, len(experts), x.shape[1], down)
    key = ("experts", *size[:3], down.k, down.n, down.activations, down.codes)
    scratch: ExpertScratch = shared(key, lambda: expert_scratch(device, *size))
    gate_up: list[Any] = list(zip(*gates_and_ups(experts), strict=True))
    downs: list[Any] = [expert.down for expert in experts]

    def launches(rows: Rows) -> Iterator[Launch]:
        yield choose_experts(
            *(scratch.weights, out, logits, rows),
            width=down.n,
            chosen=chosen,
            normalised=normalised,
            logits_stride=logits_stride,
        )
        yield list_rows(scratch.lists, scratch.counts, scratch.weights, rows)
        for number in range(len(experts)):
            numbers = scratch.lists[number]
            own = Rows(rows, scratch.counts[number : number + 1])
            yield take_rows.launch(device, scratch.x, x, numbers, own)
            yield from _expert(device, scratch, gate_up[number], downs[number], own)
            yield add_rows(out, scratch.y, numbers, scratch.weights, number, own)

    return launches


def _expert(
    device: Device,
    scratch: ExpertScratch,
    gate_up: Sequence[PanelWeight],
    down: PanelWeight,
    rows: Rows,
) -> Iterator[Launch]:
    """One expert: scratch.x -> scratch.y."""
    both, start = scratch.both.reshape(-1), 0
    for weight in gate_up:
        place: dict[str, Any] = {"x_stride": 4 * scratch.x.shape[1], "out_stride": 8 * down.k}
        yield from linear.launch(device, weight, scratch.x, both[start:], rows, **place)
        start += weight.n
    gate, up = both, both[down.k :]
    yield silu_mul.launch(
        *(device, scratch.middle, gate, up, rows, down.k),
        gate_stride=2 * down.k,
        up_stride=2 * down.k,
        codes=down.codes,
    )
    place = {"x_stride": scratch.middle.strides[0], "out_stride": 4 * down.n}
    yield from linear.launch(device, down, scratch.middle, scratch.y, rows, **place)


def prepare_switch(
    device: Device, out: DeviceArray, x: DeviceArray, picks: DeviceArray,
    weights: Sequence[PackedWeight], most: int, shared: Shared, *, chosen: int, share: int,
    picks_stride: int,
) -> MakeLaunches:  # fmt: skip
    """The launches of a switch.

    Args:
        out: f32 [rows * chosen, n]; x: [rows * chosen / share, k], as the weights take it.
        picks: int32, `chosen` experts of each row; picks_stride: elements from row to row.
        most: rows that there can be.
        share: places that share a row of x.
    """
    x, n, places = _words(x), weights[0].n, most * chosen
    size = (len(weights), places, x.shape[1], n)
    scratch = shared(("switch", *size), lambda: _switch_scratch(device, *size))
    lists, sources, counts, own_x, y = scratch

    def launches(rows: Rows) -> Iterator[Launch]:
        how: dict[str, Any] = {"chosen": chosen, "share": share, "picks_stride": picks_stride}
        yield list_places(lists, sources, counts, picks, rows, **how)
        place: dict[str, Any] = {"x_stride": 4 * x.shape[1], "out_stride": 4 * n}
        for number, weight in enumerate(weights):
            assert isinstance(weight, PanelWeight)
            own = Rows(places, counts[number : number + 1])
            yield take_rows.launch(device, own_x, x, sources[number], own)
            yield from linear.launch(device, weight, own_x, y, own, **place)
            yield put_rows(out, y, lists[number], own)

    return launches


def _switch_scratch(
    device: Device, experts: int, places: int, words: int, n: int
) -> tuple[DeviceArray, ...]:
    """(lists, sources, counts, the rows of an expert, its results)."""
    return (
        device.empty((experts, places), np.int32),
        device.empty((experts, places), np.int32),
        device.empty((experts,), np.int64),
        device.empty((places, words), np.float32),
        device.empty((places, n), np.float32),
    )


def _words(x: DeviceArray) -> DeviceArray:
    """Rows as words of 32 bits, as they are copied, whatever they hold."""
    return x.view(np.float32)


# ---- the kernels


def choose_experts(
    weights: DeviceArray, out: DeviceArray, logits: DeviceArray, rows: Rows, *, width: int,
    chosen: int, normalised: bool, logits_stride: int,
) -> Launch:  # fmt: skip
    """Args: logits_stride: in elements."""
    sizes = (weights.shape[1], width, chosen, int(normalised), 4 * logits_stride)
    return Launch(CHOOSE, ChooseArgs(weights, out, logits, rows.count, *sizes))


def list_rows(lists: DeviceArray, counts: DeviceArray, weights: DeviceArray, rows: Rows) -> Launch:
    return Launch(LIST_ROWS, ListRowsArgs(lists, counts, weights, rows.count, *lists.shape))


def add_rows(
    out: DeviceArray, y: DeviceArray, numbers: DeviceArray, weights: DeviceArray, expert: int,
    rows: Rows,
) -> Launch:  # fmt: skip
    """Args: weights [rows, experts]; rows: of `numbers` and y [.., width]."""
    sizes = (weights.shape[1], expert, y.shape[1])
    return Launch(ADD_ROWS, AddRowsArgs(out, y, numbers, weights, rows.count, *sizes))


def list_places(
    lists: DeviceArray, sources: DeviceArray, counts: DeviceArray, picks: DeviceArray, rows: Rows,
    *, chosen: int, share: int, picks_stride: int,
) -> Launch:  # fmt: skip
    """Args: picks_stride: in elements."""
    experts, capacity = lists.shape
    sizes = (experts, capacity, chosen, 4 * picks_stride, share)
    return Launch(LIST_PLACES, ListPlacesArgs(lists, sources, counts, picks, rows.count, *sizes))


def put_rows(out: DeviceArray, y: DeviceArray, places: DeviceArray, rows: Rows) -> Launch:
    """Args: rows: of `places` and y [.., width]."""
    return Launch(PUT_ROWS, PutRowsArgs(out, y, places, rows.count, y.shape[1]))
