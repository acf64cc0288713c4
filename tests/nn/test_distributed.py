"""Layers divided over ranks that are threads: together they are the whole layer."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nanocupy.core as mx
from nanocupy import nn
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.distributed import Group
from nanocupy.nn.distributed import (
    ShardedToAll,
    shard_embedding,
    shard_head,
    shard_inplace,
    shard_linear,
)
from ranks import Place, on_threads

FORMATS = [None, (4, 32), (8, 64)]  # bits and group
X = np.random.default_rng(1).standard_normal((3, 384)).astype(np.float32)


def fill(layer: Any, dtype: Any = np.float32) -> Any:
    """Random parameters that depend on the names and shapes alone."""
    rng = np.random.default_rng(0)
    for name, place in layer.items():
        if place.dtype == mx.uint32:
            value = rng.integers(0, 2**32, place.shape, np.uint32)
        else:
            value = (0.1 * rng.standard_normal(place.shape)).astype(dtype)
        layer[name] = mx.array(value)
    return layer


def linear(form: Any, k: int = 384, n: int = 12, dtype: Any = np.float32) -> Any:
    return fill(
        nn.Linear(k, n) if form is None else nn.QuantizedLinear(k, n, True, form[1], form[0]), dtype
    )


def embedding(form: Any, n: int = 50) -> Any:
    made = nn.Embedding(n, 64) if form is None else nn.QuantizedEmbedding(n, 64, 32, form[0])
    return fill(made)


def near(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max(), rtol=0)


# ---- linear layers


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_outputs_are_divided(form: Any, ranks: int) -> None:
    whole = linear(form)

    def work(group: Group) -> np.ndarray:
        part = shard_linear(whole, "all-to-sharded", group=group)
        assert type(part) is type(whole) and part is not whole
        assert part.dims() == (12 // ranks, 384)
        return part(mx.array(X)).numpy()

    near(np.concatenate(on_threads(ranks, work), axis=1), whole(mx.array(X)).numpy())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_inputs_are_divided(form: Any, ranks: int) -> None:
    """Every rank has the sum; the bias is added once."""
    whole, each = linear(form), 384 // ranks

    def work(group: Group) -> np.ndarray:
        part = shard_linear(whole, "sharded-to-all", group=group)
        own = X[:, each * group.rank() : each * (group.rank() + 1)]
        return part(mx.array(own)).numpy()

    first, *others = on_threads(ranks, work)
    near(first, whole(mx.array(X)).numpy())
    assert all(other.tobytes() == first.tobytes() for other in others)


@pytest.mark.parametrize("form", FORMATS)
def test_parts_may_be_uneven(form: Any) -> None:
    whole, parts = linear(form), [range(64), range(64, 256), range(256, 384)]
    rows = [range(5), range(5, 6), range(6, 12)]

    def work(group: Group) -> tuple[np.ndarray, np.ndarray]:
        by_outputs = shard_linear(whole, "all-to-sharded", group=group, parts=rows)
        by_inputs = shard_linear(whole, "sharded-to-all", group=group, parts=parts)
        own = X[:, parts[group.rank()]]
        return by_outputs(mx.array(X)).numpy(), by_inputs(mx.array(own)).numpy()

    columns, sums = zip(*on_threads(3, work), strict=True)
    want = whole(mx.array(X)).numpy()
    near(np.concatenate(columns, axis=1), want)
    near(sums[0], want)


@pytest.mark.parametrize("segments", [3, [4, 8], [1 / 3, 2 / 3]])
@pytest.mark.parametrize("form", FORMATS)
def test_segments_are_divided_one_by_one(form: Any, segments: Any) -> None:
    """As q, k and v in one weight: a rank has a part of each."""
    whole = linear(form)

    def work(group: Group) -> np.ndarray:
        part = shard_linear(whole, "all-to-sharded", segments=segments, group=group)
        return part(mx.array(X)).numpy().reshape(3, 3, 2)

    got = np.concatenate(on_threads(2, work), axis=2).reshape(3, 12)
    near(got, whole(mx.array(X)).numpy())


def test_segments_of_inputs() -> None:
    whole, order = linear((4, 32)), X.reshape(3, 2, 3, 64)

    def work(group: Group) -> np.ndarray:
        part = shard_linear(whole, "sharded-to-all", segments=2, group=group)
        return part(mx.array(order[:, :, group.rank()].reshape(3, 128))).numpy()

    near(on_threads(3, work)[1], whole(mx.array(X)).numpy())


@pytest.mark.parametrize("form", FORMATS)
def test_parts_are_views_until_they_are_packed(form: Any) -> None:
    whole = linear(form)
    by_outputs = shard_linear(whole, "all-to-sharded", group=Place(1, 2))
    by_inputs = shard_linear(whole, "sharded-to-all", group=Place(1, 2))
    assert isinstance(by_inputs, ShardedToAll) and "bias" not in by_inputs.linear
    for part in (by_outputs, by_inputs.linear):
        for name in part:
            assert np.shares_memory(part[name].numpy(), whole[name].numpy()), name
    device = CpuDevice(1)
    nn.prepare(by_inputs, device, "f32")
    assert by_inputs.linear.dims() == (12, 192) and by_inputs.linear.packed is not None
    with pytest.raises(ValueError, match=r"packed already: divide layers before nn\.prepare"):
        shard_linear(by_inputs.linear, "all-to-sharded", group=Place(0, 2))


@pytest.mark.parametrize(
    ("form", "how", "more", "said"),
    [
        (None, "all-to-sharded", {}, "12 in segments 1 do not divide evenly by 5 ranks"),
        (None, "sharded-to-all", {}, "384 in segments 1 do not divide evenly by 5 ranks"),
        (None, "all-to-sharded", {"segments": 5}, "12 in segments 5 do not"),
        (None, "all-to-sharded", {"segments": [9, 3]}, r"12 in segments \[9, 3\] do not"),
        (None, "sideways", {}, "sharding='sideways': expected one of"),
    ],
)
def test_what_does_not_divide_is_refused(form: Any, how: str, more: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        shard_linear(linear(form), how, group=Place(0, 5), **more)


def test_inputs_that_stay_together_are_refused() -> None:
    for rank in (0, 1):
        with pytest.raises(ValueError, match="of 192: they must come apart at multiples of 64"):
            shard_linear(linear((8, 64), k=192), "sharded-to-all", group=Place(rank, 2))
        half = linear(None, k=10, dtype=ml_dtypes.bfloat16)
        with pytest.raises(ValueError, match="multiples of 2"):  # packed in pairs
            shard_linear(half, "sharded-to-all", group=Place(rank, 2))
        for parts in ([range(64), range(128, 384)], [range(64), range(64, 320)]):
            with pytest.raises(ValueError, match="expected parts that make up 0-384"):
                shard_linear(linear(None), "sharded-to-all", group=Place(rank, 2), parts=parts)


# ---- heads and embeddings


@pytest.mark.parametrize("form", FORMATS)
def test_an_embedding_and_its_head_are_divided(form: Any) -> None:
    whole, parts = embedding(form), [range(20), range(20, 21), range(21, 50)]
    tokens, x = mx.array(np.array([[0, 19], [20, 49]], np.int32)), mx.array(X[:, :64])

    def work(group: Group) -> tuple[np.ndarray, np.ndarray]:
        part: Any = shard_embedding(whole, parts, group)
        return part(tokens).numpy(), part.as_linear(x).numpy()

    for rows, columns in on_threads(3, work):
        assert np.array_equal(rows, whole(tokens).numpy())
        near(columns, whole.as_linear(x).numpy())


def test_a_token_outside_the_vocabulary_is_refused_on_every_rank() -> None:
    parts = [range(20), range(20, 50)]
    for rank in (0, 1):
        part: Any = shard_embedding(embedding(None), parts, Place(rank, 2))
        for bad in (50, -1):
            with pytest.raises(IndexError, match="of a vocabulary of 50"):
                part(mx.array(np.array([bad], np.int32))).numpy()


def test_a_head_is_divided() -> None:
    whole, parts = linear((4, 32)), [range(7), range(7, 12)]
    outs = on_threads(2, lambda g: shard_head(whole, parts, g)(mx.array(X)).numpy())
    for out in outs:
        near(out, whole(mx.array(X)).numpy())


def test_a_group_of_one_has_the_layers_themselves() -> None:
    group, head, table = Group(), linear(None), embedding(None)
    assert shard_head(head, [range(12)], group) is head
    assert shard_embedding(table, [range(50)], group) is table
    for how in ("all-to-sharded", "sharded-to-all"):
        assert shard_linear(head, how, group=group) is head


# ---- in place


class Pair(nn.Module):
    def __init__(self, form: Any) -> None:
        super().__init__()
        self.up, self.down = linear(form, 384, 384), linear(form)


@pytest.mark.parametrize("form", FORMATS)
def test_parameters_are_divided_in_place(form: Any) -> None:
    """Nobody adds up the parts of what takes divided inputs, and each adds a bias."""
    made = Pair(form)
    h = made.up(mx.array(X))
    want = made.down(h).numpy()

    def work(group: Group) -> np.ndarray:
        pair = Pair(form)
        shard_inplace(pair.up, "all-to-sharded", group=group)
        shard_inplace(pair.down, "sharded-to-all", group=group)
        return (pair.down(pair.up(mx.array(X))) - pair.down.bias).numpy()

    parts = on_threads(3, work)
    near(sum(parts) + made.down.bias.numpy(), want)


def test_a_function_says_how_each_parameter_is_divided() -> None:
    def how(name: str, value: mx.array) -> Any:
        return None if name.startswith("down") else (-1, 2) if name == "up.weight" else 0

    pair = Pair(None)
    before = pair.up.weight.numpy()
    shard_inplace(pair, how, group=Place(1, 2))
    assert pair.down.weight.shape == (12, 384) and pair.up.bias.shape == (192,)
    assert np.array_equal(pair.up.weight.numpy(), before[:, [*range(96, 192), *range(288, 384)]])


def test_parameters_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shard_inplace: weight. 12 in segments 1 .* 5 ranks"):
        shard_inplace(linear(None), "all-to-sharded", group=Place(0, 5))
    with pytest.raises(ValueError, match=r"shard_inplace\] sharding='sideways'"):
        shard_inplace(linear(None), "sideways", group=Place(0, 2))
