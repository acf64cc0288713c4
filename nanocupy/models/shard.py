"""Tensor parallelism: heads, the hidden units of MLPs and the vocabulary are divided over ranks.

A rank has whole groups of a KV head and its query heads, with their columns of o_proj; some outputs
of gate and up, with their columns of down; some rows of the vocabulary. So a layer has two sums
over the ranks, and each rank keeps pages for its own KV heads only.

Parts are as equal as whole units allow. Where a model cannot be divided, all ranks raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from nanocupy.checkpoint import ModelConfig
from nanocupy.distributed import Group, shares
from nanocupy.nn.distributed import (
    GatheredNorm,
    ShardedToAll,
    input_step,
    shard_addend,
    shard_embedding,
    shard_fused,
    shard_head,
    shard_linear,
)
from nanocupy.nn.module import Module

UNIT = 64  # outputs: weights packed side by side are one matrix where the first has a multiple


class Heads(NamedTuple):
    """A rank's heads, which are neighbours."""

    query: range
    kv: range


# ---- the parts of all ranks


def divide_heads(heads: int, kv_heads: int, ranks: int) -> list[Heads]:
    """Return every rank's heads. The numbers of KV heads differ by one at most. With fewer KV heads
    than ranks, neighbouring ranks keep the same KV head and divide its query heads.

    Raises:
        ValueError: there are fewer KV heads than ranks, and they do not divide the ranks.
    """
    each = heads // kv_heads
    if ranks <= kv_heads:
        return [Heads(_times(part, each), part) for part in shares(kv_heads, ranks)]
    copies = ranks // kv_heads
    if ranks % kv_heads or copies > each:
        raise ValueError(
            f"[shard] {ranks} ranks cannot share {heads} query heads on {kv_heads} KV heads: up to "
            f"{kv_heads} ranks can, and multiples of {kv_heads} up to {heads}"
        )
    return [
        Heads(range(kv * each + part.start, kv * each + part.stop), range(kv, kv + 1))
        for kv in range(kv_heads)
        for part in shares(each, copies)
    ]


def divide_hidden(count: int, ranks: int, step: int = 1) -> list[range]:
    """Return every rank's hidden units of an MLP, in units of 64, or less where those are too few.

    Args:
        step: units that stay together: 1, 2 or the size of a quantised group.

    Raises:
        ValueError: there are fewer than ranks.
    """
    if ranks == 1:
        return [range(count)]
    unit = max(step, UNIT)
    while unit > step and (count % unit or count // unit < ranks):
        unit //= 2
    if count % unit or count // unit < ranks:
        raise ValueError(
            f"[shard] {ranks} ranks cannot share {count} hidden units, {step} of which stay "
            f"together: up to {count // step} can"
        )
    return [_times(part, unit) for part in shares(count // unit, ranks)]


def divide_vocabulary(count: int, ranks: int) -> list[range]:
    """Return every rank's tokens, in units of 64 (the last may be less), or of 1 if those are few.

    Raises:
        ValueError: there are fewer tokens than ranks.
    """
    if count < ranks:
        raise ValueError(f"[shard] {ranks} ranks cannot share a vocabulary of {count}")
    unit = UNIT if -(-count // UNIT) >= ranks else 1
    parts = [_times(part, unit) for part in shares(-(-count // unit), ranks)]
    return [range(part.start, min(part.stop, count)) for part in parts]


def _times(part: range, factor: int) -> range:
    return range(part.start * factor, part.stop * factor)


def kv_heads_of(config: ModelConfig, group: Group) -> int:
    """The number of a model's KV heads on this rank. ValueError where they cannot be divided."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    return len(divide_heads(heads, kv_heads, group.size())[group.rank()].kv)


# ---- modules, in place


def shard_decoder(model: Any, group: Group) -> None:
    """Divide a model whose parts have Llama's names. In a group of one nothing changes."""
    if group.size() == 1:
        return
    if any("order" in module for module in model.modules()):
        raise ValueError(
            "[shard] inputs that are sorted by their groups (act-order: desc_act, actorder) cannot "
            f"be divided over {group.size()} ranks: start one process"
        )
    for layer in model.layers:
        shard_attention(layer.self_attn, group)
        for name in ("mlp", "block_sparse_moe"):
            if "experts" in layer.get(name, ()):
                shard_experts(layer, name, group)
            elif name in layer:
                shard_mlp(layer[name], group)
    shard_vocabulary(model.model, "embed_tokens", group)
    if "lm_head" in model:
        shard_vocabulary(model, "lm_head", group)


def shard_attention(attention: Any, group: Group) -> None:
    """Divide q_proj, k_proj, v_proj (or qkv_proj) and o_proj, and q_norm and k_norm where they are
    over all heads; set `heads` and `kv_heads`."""
    heads, kv_heads = attention.heads, attention.kv_heads
    fused = "qkv_proj" in attention
    whole = attention["qkv_proj" if fused else "q_proj"].dims()[0]
    head_dim = whole // (heads + 2 * kv_heads if fused else heads)
    parts = divide_heads(heads, kv_heads, group.size())
    step, starts = input_step(attention.o_proj), [part.query.start for part in parts]
    if any(start * head_dim % step for start in starts):
        raise ValueError(
            f"[shard] {group.size()} ranks would divide {heads} heads of {head_dim} before heads "
            f"{starts[1:]}, and o_proj has groups of {step} inputs that stay together: a multiple "
            f"of {step} must come before each"
        )
    query = [_times(part.query, head_dim) for part in parts]
    kv = [_times(part.kv, head_dim) for part in parts]
    mine = parts[group.rank()]
    if fused:
        own = (query[group.rank()], kv[group.rank()], kv[group.rank()])
        starts = [0, heads * head_dim, (heads + kv_heads) * head_dim]
        _shard_fused(attention, "qkv_proj", own, starts)
    else:
        for name, columns in (("q_proj", query), ("k_proj", kv), ("v_proj", kv)):
            _replace(attention, name, "all-to-sharded", group, columns)
    for name, columns, count in (("q_norm", query, heads), ("k_norm", kv, kv_heads)):
        if name in attention and attention[name].weight.shape[0] == count * head_dim != head_dim:
            attention[name] = GatheredNorm(attention[name], columns, group)
    _replace(attention, "o_proj", "sharded-to-all", group, query)
    attention.heads, attention.kv_heads = len(mine.query), len(mine.kv)


def shard_mlp(mlp: Any, group: Group) -> None:
    """Divide gate_proj and up_proj (or gate_up_proj), and down_proj."""
    hidden = mlp.down_proj.dims()[1]
    parts = divide_hidden(hidden, group.size(), input_step(mlp.down_proj))
    if "gate_up_proj" in mlp:
        _shard_fused(mlp, "gate_up_proj", [parts[group.rank()]] * 2, [0, hidden])
    else:
        for name in ("gate_proj", "up_proj"):
            _replace(mlp, name, "all-to-sharded", group, parts)
    _replace(mlp, "down_proj", "sharded-to-all", group, parts)


def shard_experts(layer: Any, name: str, group: Group) -> None:
    """Divide each expert of a mixture as an MLP.

    So ranks have the same work whichever experts a token chooses, and their results are summed
    once, as an MLP's. The router is whole on every rank.
    """
    for expert in layer[name].experts:
        parts = divide_hidden(
            expert.down_proj.dims()[1], group.size(), input_step(expert.down_proj)
        )
        for linear in ("gate_proj", "up_proj"):
            _replace(expert, linear, "all-to-sharded", group, parts)
        expert.down_proj = shard_addend(expert.down_proj, parts, group)
    layer[name] = ShardedToAll(layer[name], group)


def shard_vocabulary(module: Any, name: str, group: Group) -> None:
    """Divide an embedding, or a head."""
    layer = module[name]
    parts = divide_vocabulary(layer.dims()[0], group.size())
    shard = shard_embedding if hasattr(layer, "as_linear") else shard_head
    module[name] = shard(layer, parts, group)


def _replace(module: Module, name: str, how: str, group: Group, parts: list[range]) -> None:
    module[name] = shard_linear(module[name], how, group=group, parts=parts)


def _shard_fused(module: Module, name: str, own: Sequence[range], starts: list[int]) -> None:
    """Divide a weight of several matrices, which start at the outputs `starts`.

    Args:
        own: this rank's outputs of each matrix.
    """
    pieces = [
        range(start + part.start, start + part.stop)
        for start, part in zip(starts, own, strict=True)
    ]
    module[name] = shard_fused(module[name], pieces)
