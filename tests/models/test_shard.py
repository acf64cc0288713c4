"""How models are divided over ranks: who has what, and that the parts add up to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nanocupy.core as mx
from models.test_llama import CONFIG, VARIANTS, model
from nanocupy import nn
from nanocupy.checkpoint import ModelConfig
from nanocupy.distributed import Group
from nanocupy.models.shard import (
    divide_heads,
    divide_hidden,
    divide_vocabulary,
    kv_heads_of,
    shares,
)
from ranks import Place, on_threads

TOKENS = [int(t) for t in np.random.default_rng(9).integers(0, 77, 12)]
UNEVEN = replace(CONFIG, num_attention_heads=9, num_key_value_heads=3)  # as SmolLM2 has them


def in_order(parts: Sequence[range], count: int) -> bool:
    """Whether the parts are neighbours, none is empty, and together they are everything."""
    ends = [0, *(part.stop for part in parts)]
    return [part.start for part in parts] == ends[:-1] and ends[-1] == count and all(parts)


# ---- who has what


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 16))
def test_heads(kv_heads: int, each: int, ranks: int) -> None:
    heads = kv_heads * each
    if ranks > kv_heads and (ranks % kv_heads or ranks > heads):
        numbers = f"{ranks} ranks cannot share {heads} query heads on {kv_heads} KV heads"
        with pytest.raises(ValueError, match=numbers):
            divide_heads(heads, kv_heads, ranks)
        return
    parts = divide_heads(heads, kv_heads, ranks)
    assert in_order([part.query for part in parts], heads)
    for query, kv in parts:  # every query head has its KV head beside it
        assert {head // each for head in query} == set(kv)
    if ranks <= kv_heads:
        assert in_order([part.kv for part in parts], kv_heads)
        sizes = {len(part.kv) for part in parts}
        assert max(sizes) - min(sizes) <= 1
    config = replace(CONFIG, num_attention_heads=heads, num_key_value_heads=kv_heads)
    found = [kv_heads_of(config, Place(rank, ranks)) for rank in range(ranks)]
    assert found == [len(part.kv) for part in parts]


@given(st.integers(1, 600), st.sampled_from([1, 2, 32, 64, 128]), st.integers(1, 8))
def test_hidden_units(groups: int, step: int, ranks: int) -> None:
    count = groups * step
    if ranks > groups:
        with pytest.raises(ValueError, match=f"{ranks} ranks cannot share {count} hidden units"):
            divide_hidden(count, ranks, step)
        return
    parts = divide_hidden(count, ranks, step)
    assert in_order(parts, count)
    assert all(part.start % step == 0 for part in parts)


@given(st.integers(1, 2000), st.integers(1, 8))
def test_vocabulary(count: int, ranks: int) -> None:
    if count < ranks:
        with pytest.raises(ValueError, match=f"a vocabulary of {count}"):
            divide_vocabulary(count, ranks)
        return
    parts = divide_vocabulary(count, ranks)
    assert in_order(parts, count)
    if count >= 64 * ranks:
        assert all(part.start % 64 == 0 for part in parts)


@given(st.integers(0, 100), st.integers(1, 9))
def test_shares_are_those_of_a_group(count: int, ranks: int) -> None:
    assert shares(count, ranks) == [Place(rank, ranks).share(count) for rank in range(ranks)]
    assert all(a.stop == b.start for a, b in pairwise(shares(count, ranks)))


def test_quantised_heads_come_apart_between_groups_only() -> None:
    made = model(replace(CONFIG, head_dim=48, num_key_value_heads=4))
    nn.quantize(made, lambda _, m: (4, 32) if hasattr(m, "to_quantized") else None)
    with pytest.raises(ValueError, match=r"4 heads of 48 .* groups of 32 inputs"):
        made.shard(Place(0, 4))


# ---- parts add up


def logits(config: ModelConfig, group: Group, bits: int = 0, dtype: str = "") -> np.ndarray:
    made = model(config)
    if dtype:
        made.apply(lambda x: x.astype(getattr(mx, dtype)))
    if bits:
        nn.quantize(made, lambda path, m: (bits, 32) if hasattr(m, "to_quantized") else None)
        fill(made)
    made.shard(group)
    return np.asarray(made(mx.array(np.array([TOKENS], np.int32))).numpy(), np.float32)[0]


def fill(made: nn.Module) -> None:
    """Codes, scales and biases at random, where quantising left zeros."""
    rng = np.random.default_rng(3)
    for module in made.modules():
        if "scales" in module:
            module.weight = mx.array(rng.integers(0, 2**32, module.weight.shape, np.uint32))
            for name in ("scales", "biases"):
                values = rng.standard_normal(module.scales.shape) * 0.01
                module[name] = mx.array(values.astype(np.float32))


def agree(config: ModelConfig, ranks: int, **how: object) -> None:
    whole = logits(config, Place(0, 1), **how)  # type: ignore[arg-type]
    parts = on_threads(ranks, lambda group: logits(config, group, **how))  # type: ignore[arg-type]
    for part in parts:
        np.testing.assert_array_equal(part, parts[0])  # the same bits on all ranks
    assert np.abs(whole).max() > 0.1
    np.testing.assert_allclose(parts[0], whole, atol=3e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", [n for n in VARIANTS if n != "one kv head"])
def test_two_ranks_make_what_one_makes(name: str) -> None:
    agree(VARIANTS[name], 2)


@pytest.mark.parametrize("ranks", [2, 3, 6, 9])
def test_uneven_heads_and_kv_heads_that_several_keep(ranks: int) -> None:
    agree(UNEVEN, ranks)


@pytest.mark.parametrize("ranks", [2, 3])
def test_one_kv_head(ranks: int) -> None:
    agree(VARIANTS["one kv head"], ranks)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("tied", [True, False])
def test_quantised_weights(bits: int, tied: bool) -> None:
    config = replace(CONFIG, head_dim=32, attention_bias=True, tie_word_embeddings=tied)
    agree(config, 2, bits=bits)


def test_sixteen_bit_weights() -> None:
    agree(UNEVEN, 2, dtype="bfloat16")
