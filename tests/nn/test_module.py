"""Modules, their trees of parameters, and what stands in for MLX's sharded layers."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import nanocupy.core as mx
from nanocupy import nn
from nanocupy.nn.distributed import shard_inplace, shard_linear
from nanocupy.utils import tree_flatten, tree_reduce, tree_unflatten


def test_trees_fold_and_unflatten_with_gaps() -> None:
    tree = {"a": [1, {"b": 2}], "c": (3,)}
    assert tree_reduce(operator.add, tree) == 6 and tree_reduce(operator.add, tree, 10) == 16
    assert tree_unflatten([("x.2.w", 5), ("x.0.w", 3)]) == {"x": [{"w": 3}, {}, {"w": 5}]}
    assert tree_unflatten(tree_flatten({"a": [1, {"b": 2}]})) == {"a": [1, {"b": 2}]}


def test_only_arrays_are_parameters_wherever_a_list_of_names_lies() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kinds = ["full", "sliding"]
            self.layers = [nn.RMSNorm(4), nn.RMSNorm(4)]

    made = Named()
    names = [name for name, _ in tree_flatten(made.parameters())]
    assert names == ["layers.0.weight", "layers.1.weight"]
    made.load_weights([("layers.1.weight", mx.full(4, 3.0))], strict=False)
    assert [layer.weight.tolist() for layer in made.layers] == [[1.0] * 4, [3.0] * 4]
    assert made.kinds == ["full", "sliding"]


def test_sharding_over_a_group_of_one_changes_nothing() -> None:
    layer = nn.Linear(3, 2)
    assert shard_linear(layer, "all-to-sharded", group=mx.distributed.init()) is layer
    shard_inplace(layer, lambda *_: None)
    with pytest.raises(ValueError, match="sideways"):
        shard_linear(layer, "sideways")


def test_softplus_of_large_numbers_is_finite() -> None:
    x = np.array([-200, -30, 0, 30, 200], np.float32)
    want = np.logaddexp(x.astype(np.float64), 0)
    np.testing.assert_allclose(nn.softplus(mx.array(x)).numpy(), want, rtol=1e-6, atol=1e-30)
