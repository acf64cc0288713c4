"""A mixture of experts: each row goes through a few of many gated MLPs, and their results add up.

An expert's linears are launched for the rows that chose it, which it finds in a list; how many they
are is known on the device only, as the number of rows of a step is. On a CPU an expert's linears
are launches of their own; on CUDA one launch is for all experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nanocupy.core.recorder.arrays import array, record
from nanocupy.core.recorder.casting import astype, rounded
from nanocupy.core.recorder.graph import Node, Op, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.core.recorder.packed import ACTIVATIONS, QUANTIZE
from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import Launches
from nanocupy.kernels import experts as kernel
from nanocupy.kernels.elementwise import silu_reference
from nanocupy.kernels.experts import cuda
from nanocupy.kernels.linear import PackedWeight


class Expert(NamedTuple):
    """silu(gate x) * (up x), then down: packed, gate and up side by side."""

    gate: PackedWeight
    up: PackedWeight
    down: PackedWeight


class _Scratch(NamedTuple):
    """Working memory, one for all experts of all layers of one size."""

    weights: Any  # f32 [rows, experts]
    lists: Any  # int32 [experts, rows]
    counts: Any  # int64 [experts]
    x: Any  # the rows of an expert
    both: Any  # f32 [rows, 2 * hidden]: gate and up
    middle: Any  # rounded as `down` wants it
    y: Any  # f32 [rows, dims]


def _scratch(to: Lowering, rows: int, count: int, words: int, expert: Expert) -> _Scratch:
    hidden, dims, device = expert.down.k, expert.down.n, to.device
    shape, dtype = rounded(
        ((rows, hidden), np.dtype(ACTIVATIONS.get(expert.down.activations, np.float32))),
        None,
        expert.down.codes,
    )
    return to.shared(
        ("experts", rows, count, words, hidden, dims, shape, dtype),
        lambda: _Scratch(
            device.empty((rows, count), np.float32),
            device.empty((count, rows), np.int32),
            device.empty((count,), np.int64),
            device.empty((rows, words), np.float32),
            device.empty((rows, 2 * hidden), np.float32),
            device.empty(shape, dtype),
            device.empty((rows, dims), np.float32),
        ),
    )


def _lower_experts(to: Lowering, node: Node) -> None:
    if to.device.kind == "cuda":
        _lower_on_cuda(to, node)
        return
    source, logits = node.inputs
    chosen: Sequence[Expert] = node.attrs["experts"]
    rows, count, dims = to.rows(node), len(chosen), width(node.shape)
    # Rows are copied as words of 32 bits, whatever they hold.
    words = width(source.shape) * source.dtype.itemsize // 4
    x = to.contiguous(source, to.of(source))[: int(rows) * width(source.shape)]
    x = x.view(np.float32).reshape(-1, words)
    scratch, out = _scratch(to, int(rows), count, words, chosen[0]), to.of(node).view
    place, how = to.of(logits), {"experts": count, "width": dims, **node.attrs["choice"]}

    def launches(rows: Rows) -> Iterator[Launch]:
        yield kernel.launch_choose(
            to.device, scratch.weights, out, place.view, rows, logits_stride=place.stride, **how
        )
        yield kernel.launch_list(to.device, scratch.lists, scratch.counts, scratch.weights, rows)
        for number, expert in enumerate(chosen):
            index = scratch.lists[number]
            own = Rows(rows, scratch.counts[number : number + 1])
            yield to.launches.take_rows.launch(to.device, scratch.x, x, index, own)
            yield from _expert(to.launches, to.device, scratch, expert, own)
            yield kernel.launch_add(
                to.device, out, scratch.y, index, scratch.weights, number, own, dims
            )

    to.add(rows, launches)


def _expert(
    launches: Launches, device: Any, to: _Scratch, expert: Expert, rows: Rows
) -> Iterator[Launch]:
    """to.x -> to.y."""
    hidden, middle = expert.down.k, to.middle.shape[1] * to.middle.dtype.itemsize
    both = to.both.reshape(-1)
    weights = [expert.gate, expert.up]
    if expert.up.follows(expert.gate):
        weights = [expert.gate.joined(expert.up)]
    start = 0
    for weight in weights:
        place = {"x_stride": 4 * to.x.shape[1], "out_stride": 8 * hidden}
        yield from launches.linear.launch(device, weight, to.x, both[start:], rows, **place)
        start += weight.n
    yield launches.silu_mul.launch(
        *(device, to.middle, both, both[hidden:], rows, hidden),
        gate_stride=2 * hidden,
        up_stride=2 * hidden,
        codes=expert.down.codes,
    )
    place = {"x_stride": middle, "out_stride": 4 * expert.down.n}
    yield from launches.linear.launch(device, expert.down, to.middle, to.y, rows, **place)


# ---- on CUDA: a launch is for all experts


class _Places(NamedTuple):
    """Working memory, one for all layers of one size. A place is one of the experts of a row."""

    picks: Any  # int32 [rows, chosen]
    weights: Any  # f32 [rows, chosen]
    of: cuda.Places
    both: Any  # f32 [places, 2 * hidden]: gate and up
    middle: Any  # [places, hidden], as `down` wants it
    y: Any  # f32 [places, dims]


def _places(to: Lowering, rows: int, chosen: int, experts: Sequence[Expert]) -> _Places:
    down, device = experts[0].down, to.device
    shape, dtype = (rows * chosen, down.k), np.dtype(ACTIVATIONS[down.activations])
    return to.shared(
        ("experts", rows, chosen, len(experts), down.n, shape, dtype),
        lambda: _Places(
            device.empty((rows, chosen), np.int32),
            device.empty((rows, chosen), np.float32),
            cuda.Places(
                device.empty((len(experts), rows), np.int32),
                device.empty((len(experts) + 1,), np.int64),
            ),
            device.empty((rows * chosen, 2 * down.k), np.float32),
            device.empty(shape, dtype),
            device.empty((rows * chosen, down.n), np.float32),
        ),
    )


def _lower_on_cuda(to: Lowering, node: Node) -> None:
    source, logits = node.inputs
    experts: Sequence[Expert] = node.attrs["experts"]
    most, count, device = to.rows(node), len(experts), to.device
    chosen, normalised = (node.attrs["choice"][name] for name in ("chosen", "normalised"))
    size, hidden, dims = width(source.shape), experts[0].down.k, width(node.shape)
    x = to.contiguous(source, to.of(source))[: int(most) * size].reshape(-1, size)
    scratch, out, place = _places(to, int(most), chosen, experts), to.of(node).view, to.of(logits)
    parts = [cuda.weights_of(device, weights) for weights in _gates_and_ups(experts)]
    down = cuda.weights_of(device, [expert.down for expert in experts])
    both = scratch.both.reshape(-1)

    def launches(rows: Rows) -> Iterator[Launch]:
        yield cuda.launch_choose(
            *(device, scratch.picks, scratch.weights, place.view, rows),
            experts=count,
            normalised=normalised,
            logits_stride=place.stride,
        )
        yield cuda.launch_list(device, scratch.of, scratch.picks, rows, chosen, picks_stride=chosen)
        start = 0
        for weights in parts:
            into, how = both[start:], {"share": chosen, "out_stride": 2 * hidden}
            yield cuda.launch_product(device, into, x, weights, scratch.of, rows, **how)
            start += weights.one.n
        pairs = Rows(int(rows) * chosen, scratch.of.counts[count:])
        yield to.launches.silu_mul.launch(
            *(device, scratch.middle, both, both[hidden:], pairs, hidden),
            gate_stride=2 * hidden,
            up_stride=2 * hidden,
        )
        how = {"share": 1, "out_stride": dims}
        yield cuda.launch_product(device, scratch.y, scratch.middle, down, scratch.of, rows, **how)
        yield cuda.launch_sum(device, out, scratch.y, scratch.weights, rows)

    to.add(most, launches)


def _gates_and_ups(experts: Sequence[Expert]) -> list[list[PackedWeight]]:
    """As one weight of each expert where they lie side by side, else as two."""
    if all(expert.up.follows(expert.gate) for expert in experts):
        return [[expert.gate.joined(expert.up) for expert in experts]]
    return [[expert.gate for expert in experts], [expert.up for expert in experts]]


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
        x = astype(x, ACTIVATIONS[gate.activations])
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
    rows, picked, first = to.rows(node), to.of(index), weights[0]
    chosen, vectors = width(index.shape), width(source.shape) // first.k
    if chosen % vectors or index.dtype.itemsize != 4 or first.codes:
        raise NotImplementedError(
            f"[gather_mm] {source.shape} with indices {index.dtype} {index.shape} in a Program"
        )
    x = to.contiguous(source, to.of(source))[: int(rows) * vectors * first.k]
    lower = _switch_on_cuda if to.device.kind == "cuda" else _switch_on_cpu
    made = lower(to, int(rows) * chosen, weights, x.reshape(-1, first.k), to.of(node).view)
    how = {"chosen": chosen, "share": chosen // vectors, "picks_stride": picked.stride}
    to.add(rows, lambda rows: made(rows, picked.view, **how))


_Launches = Callable[..., Iterator[Launch]]


def _switch_on_cuda(
    to: Lowering, most: int, weights: Sequence[PackedWeight], x: Any, out: Any
) -> _Launches:
    device, table = to.device, cuda.weights_of(to.device, weights)
    places = to.shared(
        ("places", len(weights), most),
        lambda: cuda.Places(
            device.empty((len(weights), most), np.int32),
            device.empty((len(weights) + 1,), np.int64),
        ),
    )

    def launches(
        rows: Rows, picks: Any, chosen: int, share: int, picks_stride: int
    ) -> Iterator[Launch]:
        how = {"picks_stride": picks_stride}
        yield cuda.launch_list(device, places, picks, rows, chosen, **how)
        each = Rows(int(rows) * chosen, rows.count)  # a row may name an expert again
        where = {"share": share, "out_stride": table.one.n}
        yield cuda.launch_product(device, out, x, table, places, each, **where)

    return launches


def _switch_on_cpu(
    to: Lowering, most: int, weights: Sequence[PackedWeight], x: Any, out: Any
) -> _Launches:
    device, count, first = to.device, len(weights), weights[0]
    words = first.k * x.dtype.itemsize // 4  # rows are copied as words of 32 bits
    lists, sources, counts, own_x, y = to.shared(
        ("switch", count, most, words, first.n),
        lambda: (
            device.empty((count, most), np.int32),
            device.empty((count, most), np.int32),
            device.empty((count,), np.int64),
            device.empty((most, words), np.float32),
            device.empty((most, first.n), np.float32),
        ),
    )
    x = x.view(np.float32)

    def launches(
        rows: Rows, picks: Any, chosen: int, share: int, picks_stride: int
    ) -> Iterator[Launch]:
        where = {"picks_stride": picks_stride}
        yield kernel.launch_list_places(
            device, lists, sources, counts, picks, rows, chosen, share, **where
        )
        place = {"x_stride": 4 * words, "out_stride": 4 * first.n}
        for number, weight in enumerate(weights):
            own = Rows(most, counts[number : number + 1])
            yield to.launches.take_rows.launch(device, own_x, x, sources[number], own)
            yield from to.launches.linear.launch(device, weight, own_x, y, own, **place)
            yield kernel.launch_put(device, out, y, lists[number], own, first.n)

    return launches


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
    x = astype(x, ACTIVATIONS[weights[0].activations])
    return record(SWITCH, x, index, weights=tuple(weights), shape=tuple(shape))
