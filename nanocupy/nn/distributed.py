"""Layers shared out over a group, as `mlx.nn.layers.distributed` has them."""

from __future__ import annotations

from typing import Any

from nanocupy.core import distributed
from nanocupy.nn.module import Module

_SHARDINGS = ("all-to-sharded", "sharded-to-all")


def shard_linear(
    module: Module,
    sharding: str,
    *,
    segments: Any = 1,
    group: distributed.Group | None = None,
) -> Module:
    """The part of a linear layer that this process computes: in a group of one, all of it.

    Args:
        sharding: "all-to-sharded" divides the outputs, "sharded-to-all" the inputs.
        segments: matrices side by side in the weight, each divided by itself.
    """
    _check("shard_linear", sharding, group)
    return module


def shard_inplace(
    module: Module,
    sharding: Any,
    *,
    segments: Any = 1,
    group: distributed.Group | None = None,
) -> None:
    """Keep only this process's part of a module's parameters: in a group of one, all of them.

    Args:
        sharding: as for `shard_linear`, or a function that says how each parameter is divided.
        segments: as for `shard_linear`.
    """
    _check("shard_inplace", sharding, group)


def _check(name: str, sharding: Any, group: distributed.Group | None) -> None:
    if not callable(sharding) and sharding not in _SHARDINGS:
        raise ValueError(f"[{name}] sharding={sharding!r}: expected one of {_SHARDINGS}")
    if (group or distributed.init()).size() > 1:
        raise NotImplementedError(f"[{name}] groups of several processes")
