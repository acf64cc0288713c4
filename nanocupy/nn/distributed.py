"""Layers shared out over a group, as `mlx.nn.layers.distributed` has them.

Two ways to divide a matrix. By outputs ("all-to-sharded"): a rank computes some columns of the
result from all of x. The layer stays a plain one with fewer outputs. By inputs ("sharded-to-all"):
a rank has some columns of x, and the ranks' results are added. Before `nn.prepare`, parts are views
of the whole: a rank reads only its own part of a mapped file.
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

Parts = Sequence[range]  # of every rank: from where to where

_SHARDINGS = ("all-to-sharded", "sharded-to-all")


class ShardedToAll(Module):
    """A linear layer of some inputs on each rank (or whatever else is a part of a sum): the sum of
    what the ranks make of them."""

    def __init__(self, linear: Module, group: Group) -> None:
        super().__init__()
        self.linear, self.group = linear, group

    def __call__(self, x: array) -> array:
        return all_sum(self.linear(x), group=self.group)


class GatheredLinear(Module):
    """A linear layer of some outputs on each rank, where every rank wants all of them: a head."""

    def __init__(self, linear: Module, parts: Parts, group: Group) -> None:
        super().__init__()
        self.linear, self.group, self.widths = linear, group, [len(part) for part in parts]

    def __call__(self, x: array) -> array:
        return gather_columns(self.linear(x), self.widths, group=self.group)


class GatheredNorm(Module):
    """A norm over columns of which each rank has some: over all of them, for its own.

    Ranks may have the same columns, each as many times as any other: the mean is the same.
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
    """An embedding of which each rank has some rows."""

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
        """All columns of the output layer that is tied to it."""
        return gather_columns(self.embedding.as_linear(x), self.widths, group=self.group)


def shard_linear(
    module: Module,
    sharding: str,
    *,
    segments: Any = 1,
    group: Group | None = None,
    parts: Parts | None = None,
) -> Module:
    """The part of a linear layer that this rank computes; in a group of one, the layer itself.

    A bias is divided with the outputs. Where the inputs are divided, rank 0 keeps it.

    Args:
        sharding: "all-to-sharded" divides the outputs, "sharded-to-all" the inputs.
        segments: matrices side by side in the weight, each divided by itself, evenly: how many, or
            where all but the first start (ints, or fractions of the whole).
        parts: every rank's part, in place of `segments`. Those of the outputs may overlap.

    Raises:
        ValueError: something does not divide evenly; `parts` are not the whole, or come apart
            inside a group that is quantised together; the layer is packed already.
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


def shard_fused(linear: Weighted, pieces: Parts, group: Group) -> Module:
    """A linear layer of which this rank computes several pieces of the outputs, side by side."""
    part: Module = linear if group.size() == 1 else _part(linear, 0, pieces)
    return part


def shard_addend(linear: Weighted, parts: Parts, group: Group) -> Module:
    """A linear layer divided by its inputs, whose results somebody else adds up. It has no bias."""
    assert "bias" not in linear
    if group.size() == 1:
        return linear
    pieces = [parts[group.rank()]]
    _check_inputs(linear, linear.dims()[1], pieces, parts)
    part: Module = _part(linear, 1, pieces)
    return part


def shard_norm(norm: RMSNorm, parts: Parts, group: Group) -> Module:
    """A norm over columns that are divided, or that several ranks have."""
    return norm if group.size() == 1 else GatheredNorm(norm, parts, group)


def shard_head(linear: Weighted, parts: Parts, group: Group) -> Module:
    """A linear layer divided by its outputs, which all ranks then have."""
    if group.size() == 1:
        return linear
    return GatheredLinear(_part(linear, 0, [parts[group.rank()]]), parts, group)


def shard_embedding(embedding: Embedding, parts: Parts, group: Group) -> Module:
    """An embedding divided by its rows."""
    if group.size() == 1:
        return embedding
    return ShardedEmbedding(_part(embedding, 0, [parts[group.rank()]]), parts, group)


def sum_gradients(group: Group) -> Callable[[array], array]:
    """A function that gives back what it takes: there are no gradients here."""
    return lambda x: x


def input_step(layer: Weighted) -> int:
    """A layer's inputs come apart at multiples of this: quantised together, or packed in pairs.

    Those that are sorted stay together.
    """
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
    """Keep only this rank's part of a module's parameters: in a group of one, all of them.

    Nothing is added up: that is left to whoever calls the module.

    Args:
        sharding: as for `shard_linear`; or a function of a parameter's name and value that gives
            the axis to divide, (axis, segments), or None to keep it whole.
        segments: as for `shard_linear`.

    Raises:
        ValueError: something does not divide evenly.
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
    """Which axis of a linear layer's parameter is divided."""
    bias = name.rpartition(".")[2] == "bias"
    if sharding == "all-to-sharded":
        return -1 if bias else max(value.ndim - 2, 0)
    return None if bias else -1


def _part(layer: Any, axis: int, pieces: Parts) -> Any:
    """A copy of the layer that has some outputs (axis 0) or inputs (1) of it."""
    if layer.packed is not None:
        raise ValueError("[shard] the layer is packed already: divide layers before nn.prepare")
    part, whole = copy.copy(layer), layer.dims()[axis]
    names = ("weight", "scales", "biases", "bias")[: 4 - axis]
    for name in names:
        if name in layer:
            part[name] = _cut(layer[name], axis, pieces, whole)
    return part


def _cut(x: array, axis: int, pieces: Parts, whole: int) -> array:
    """Pieces of an axis which they count as `whole`: one is a view, several are put together."""
    host, each = x.numpy(), x.shape[axis]
    views = [
        host[(slice(None),) * axis + (slice(p.start * each // whole, p.stop * each // whole),)]
        for p in pieces
    ]
    return shared(views[0] if len(views) == 1 else np.concatenate(views, axis))


def _pieces(name: str, count: int, segments: Any, group: Group) -> list[range]:
    """This rank's part of each segment, as large as every other rank's."""
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
    """Inputs come apart in steps; every one is in one part."""
    step, shown = input_step(layer), pieces if parts is None else parts
    found = ", ".join(f"{part.start}-{part.stop}" for part in shown)
    if any(part.start % step or part.stop % step for part in shown):
        raise ValueError(
            f"[shard_linear] inputs {found} of {whole}: they must come apart at multiples of {step}"
        )
    ends = [0, *(part.stop for part in shown)]
    if parts is not None and ([part.start for part in parts], whole) != (ends[:-1], ends[-1]):
        raise ValueError(f"[shard_linear] inputs {found}: expected parts that make up 0-{whole}")
