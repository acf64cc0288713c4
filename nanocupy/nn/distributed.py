"""Tensor-parallel layers, as `mlx.nn.layers.distributed` has them.

A matrix is divided in one of two ways. By outputs ("all-to-sharded"): a rank computes some columns
of the result from all of x, with a plain layer that has fewer outputs. By inputs
("sharded-to-all"): a rank has some columns of x, and the ranks' results are summed. Before
`nn.prepare`, parts are views of the whole: a rank reads only its own part of a mapped file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nanocupy.core import array
from nanocupy.core.recorder.arrays import shared
from nanocupy.core.recorder.collectives import all_sum, gather_columns
from nanocupy.core.recorder.fused import rms_norm
from nanocupy.core.recorder.packed import embedding_part, packed_embedding
from nanocupy.distributed import Group, world
from nanocupy.nn.layers import Embedding, RMSNorm, Weighted
from nanocupy.nn.module import Module
from nanocupy.utils import tree_flatten, tree_unflatten

Parts = Sequence[range]  # every rank's rows or columns

_SHARDINGS = ("all-to-sharded", "sharded-to-all")


class ShardedToAll(Module):
    """The sum over all ranks of a layer that has some of the inputs on each rank."""

    def __init__(self, linear: Module, group: Group) -> None:
        super().__init__()
        self.linear, self.group = linear, group

    def __call__(self, x: array) -> array:
        return all_sum(self.linear(x), group=self.group)


class GatheredLinear(Module):
    """A linear layer with some of the outputs on each rank, gathered on all ranks: a head."""

    def __init__(self, linear: Module, parts: Parts, group: Group) -> None:
        super().__init__()
        self.linear, self.group, self.widths = linear, group, [len(part) for part in parts]

    def __call__(self, x: array) -> array:
        return gather_columns(self.linear(x), self.widths, group=self.group)


class GatheredNorm(Module):
    """A norm over the columns of all ranks, of which each rank has some and returns its own.

    Columns may be on several ranks, if all are on equally many: the mean is the same.
    """

    def __init__(self, norm: RMSNorm, parts: Parts, group: Group) -> None:
        super().__init__()
        host = norm.weight.numpy()
        self.weight = shared(np.concatenate([host[part.start : part.stop] for part in parts]))
        self.eps, self.group, self.widths = norm.eps, group, [len(part) for part in parts]

    def __call__(self, x: array) -> array:
        whole = gather_columns(x, self.widths, group=self.group)
        before = sum(self.widths[: self.group.rank()])
        own = slice(before, before + self.widths[self.group.rank()])
        return rms_norm(whole, self.weight, self.eps)[..., own]


class ShardedEmbedding(Module):
    """An embedding with some of the rows on each rank."""

    def __init__(self, embedding: Embedding, parts: Parts, group: Group) -> None:
        super().__init__()
        self.embedding, self.group, self.widths = embedding, group, [len(part) for part in parts]
        self.first, self.vocabulary = parts[group.rank()].start, parts[-1].stop

    def __call__(self, tokens: array) -> array:
        own, where = self.embedding, (self.first, self.vocabulary)
        if own.packed is not None:
            rows = packed_embedding(tokens, own.packed, *where)
        else:
            rows = embedding_part(tokens, own.dense(), *where)
        return all_sum(rows, group=self.group)

    def as_linear(self, x: array) -> array:
        """Logits of all rows, with the embedding as the output layer's weight."""
        return gather_columns(self.embedding.as_linear(x), self.widths, group=self.group)


def shard_linear(
    module: Module,
    sharding: str,
    *,
    segments: Any = 1,
    group: Group | None = None,
    parts: Parts | None = None,
) -> Module:
    """Return the part of a linear layer that this rank computes; in a group of one, the layer.

    A bias is divided with the outputs. Where the inputs are divided, rank 0 keeps it.

    Args:
        sharding: "all-to-sharded" divides the outputs, "sharded-to-all" the inputs.
        segments: matrices side by side in the weight, each divided evenly: their number, or where
            all but the first start (ints, or fractions of the whole).
        parts: every rank's part, instead of `segments`. Parts of the outputs may overlap.

    Raises:
        ValueError: a segment does not divide evenly; `parts` do not cover the inputs, or divide a
            group that is quantised together; the layer is packed already.
    """
    if sharding not in _SHARDINGS:
        raise ValueError(f"[shard_linear] sharding={sharding!r}: expected one of {_SHARDINGS}")
    group = world() if group is None else group
    if group.size() == 1:
        return module
    assert isinstance(module, Weighted)
    by_outputs = sharding == "all-to-sharded"
    whole = module.dims()[0 if by_outputs else 1]
    if parts is None:
        pieces = _pieces("shard_linear", whole, segments, group)
    else:
        pieces = [parts[group.rank()]]
    if by_outputs:
        return _part(module, 0, pieces)
    _check_inputs(module, whole, pieces, parts)
    linear = _part(module, 1, pieces)
    if group.rank():
        linear.pop("bias", None)
    return ShardedToAll(linear, group)


def shard_fused(linear: Weighted, pieces: Parts) -> Module:
    """Return a linear layer with several pieces of the outputs, side by side."""
    part: Module = _part(linear, 0, pieces)
    return part


def shard_addend(linear: Weighted, parts: Parts, group: Group) -> Module:
    """Return this rank's part of a linear layer without bias divided by its inputs.

    The caller sums the ranks' results.
    """
    assert "bias" not in linear
    pieces = [parts[group.rank()]]
    _check_inputs(linear, linear.dims()[1], pieces, parts)
    part: Module = _part(linear, 1, pieces)
    return part


def shard_head(linear: Weighted, parts: Parts, group: Group) -> Module:
    """Return a linear layer divided by its outputs, which are gathered on all ranks."""
    if group.size() == 1:
        return linear
    return GatheredLinear(_part(linear, 0, [parts[group.rank()]]), parts, group)


def shard_embedding(embedding: Embedding, parts: Parts, group: Group) -> Module:
    """Return an embedding divided by its rows."""
    if group.size() == 1:
        return embedding
    return ShardedEmbedding(_part(embedding, 0, [parts[group.rank()]]), parts, group)


def sum_gradients(group: Group) -> Callable[[array], array]:
    """Return the identity: there are no gradients here."""
    return lambda x: x


def input_step(layer: Weighted) -> int:
    """The number of neighbouring inputs that must stay on one rank: a quantised group, a pair of
    16-bit floats, or all inputs of an act-order layer."""
    if "order" in layer:
        return layer.dims()[1]
    if hasattr(layer, "group_size"):
        return int(layer.group_size)
    return 2 if layer.weight.dtype.itemsize == 2 else 1


def shard_inplace(
    module: Module,
    sharding: str | Callable[[str, array], Any],
    *,
    segments: Any = 1,
    group: Group | None = None,
) -> None:
    """Keep only this rank's part of a module's parameters; in a group of one, all of them.

    The caller of the module sums the ranks' results.

    Args:
        sharding: as for `shard_linear`; or a function of a parameter's name and value that returns
            the axis to divide, (axis, segments), or None to keep it whole.
        segments: as for `shard_linear`.

    Raises:
        ValueError: a parameter does not divide evenly.
    """
    if not callable(sharding) and sharding not in _SHARDINGS:
        raise ValueError(f"[shard_inplace] sharding={sharding!r}: expected one of {_SHARDINGS}")
    group = world() if group is None else group
    if group.size() == 1:
        return
    cut: list[tuple[str, array]] = []
    for name, value in tree_flatten(module.parameters()):
        how = sharding(name, value) if callable(sharding) else _axis(sharding, name, value)
        if how is not None:
            axis, parts_of = how if isinstance(how, tuple) else (how, segments)
            axis %= value.ndim
            size = value.shape[axis]
            pieces = _pieces(f"shard_inplace: {name}", size, parts_of, group)
            cut.append((name, _cut(value, axis, pieces, size)))
    if cut:
        module.update(tree_unflatten(cut))


def _axis(sharding: str, name: str, value: array) -> int | None:
    """The axis of a linear layer's parameter that is divided; None: none."""
    bias = name.rpartition(".")[2] == "bias"
    if sharding == "all-to-sharded":
        return -1 if bias else max(value.ndim - 2, 0)
    return None if bias else -1


def _part(layer: Any, axis: int, pieces: Parts) -> Any:
    """Copy a layer, with some of its outputs (axis 0) or inputs (axis 1)."""
    if layer.packed is not None:
        raise ValueError("[shard] the layer is packed already: divide layers before nn.prepare")
    part, whole = copy.copy(layer), layer.dims()[axis]
    names = ("weight", "scales", "biases", "bias")[: 4 - axis]
    for name in names:
        if name in layer:
            part[name] = _cut(layer[name], axis, pieces, whole)
    return part


def _cut(x: array, axis: int, pieces: Parts, whole: int) -> array:
    """Take pieces of an axis, in units of its size / `whole`. One piece is a view."""
    host, each = x.numpy(), x.shape[axis]
    views = [
        host[(slice(None),) * axis + (slice(p.start * each // whole, p.stop * each // whole),)]
        for p in pieces
    ]
    return shared(views[0] if len(views) == 1 else np.concatenate(views, axis))


def _pieces(name: str, count: int, segments: Any, group: Group) -> list[range]:
    """This rank's part of each segment; all ranks' parts are equal in size."""
    if isinstance(segments, int):
        starts = [count * i / segments for i in range(1, segments)]
    else:
        starts = [s if isinstance(s, int) else int(s * count) for s in segments]
    rank, ranks = group.rank(), group.size()
    pieces = []
    for start, stop in pairwise([0, *starts, count]):
        each = (stop - start) / ranks
        if start != int(start) or each != int(each) or each <= 0:
            raise ValueError(
                f"[{name}] {count} in segments {segments!r} do not divide evenly by {ranks} ranks"
            )
        pieces.append(range(int(start + each * rank), int(start + each * (rank + 1))))
    return pieces


def _check_inputs(layer: Weighted, whole: int, pieces: Parts, parts: Parts | None) -> None:
    """Check that no group of inputs is divided, and that every input is in one part."""
    step, shown = input_step(layer), pieces if parts is None else parts
    found = ", ".join(f"{part.start}-{part.stop}" for part in shown)
    if any(part.start % step or part.stop % step for part in shown):
        raise ValueError(
            f"[shard_linear] inputs {found} of {whole}: they must come apart at multiples of {step}"
        )
    ends = [0, *(part.stop for part in shown)]
    if parts is not None and ([part.start for part in parts], whole) != (ends[:-1], ends[-1]):
        raise ValueError(f"[shard_linear] inputs {found}: expected parts that make up 0-{whole}")
