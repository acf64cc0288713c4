"""How models are divided over ranks: who has what, and that the parts add up to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nanocupy.core as mx
from kernels.ranks import on_ranks, shared
from models.test_llama import CONFIG, VARIANTS, model
from models.test_llama import logits as paged_logits
from nanocupy import nn
from nanocupy.checkpoint import ModelConfig
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.distributed import Group, shares
from nanocupy.engine.kv_cache import kv_cache_config
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.precision import precision
from nanocupy.engine.runner import ModelRunner
from nanocupy.models.cache import KVCache
from nanocupy.models.llama import Model
from nanocupy.models.shard import (
    divide_heads,
    divide_hidden,
    divide_vocabulary,
    kv_heads_of,
)
from nanocupy.utils import tree_flatten
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


def test_pages_are_for_the_heads_of_a_rank() -> None:
    options = EngineOptions(num_kv_blocks=4)
    numbers = precision(UNEVEN, options, False)
    plans = [
        kv_cache_config(UNEVEN, options, numbers, None, "cpu", Place(rank, 2)) for rank in range(2)
    ]
    whole = kv_cache_config(UNEVEN, options, numbers)
    assert [p.kv_heads for p in plans] == [1, 2]
    assert sum(p.nbytes for p in plans) == whole.nbytes
    with pytest.raises(ValueError, match="4 ranks cannot share"):
        kv_cache_config(UNEVEN, options, numbers, None, "cpu", Place(0, 4))


@pytest.mark.parametrize(
    ("ranks", "bits", "changed", "said"),
    [
        (3, 0, {}, "3 ranks cannot share 4 query heads on 2 KV heads: up to 2 ranks can"),
        (6, 0, {}, "6 ranks cannot share 4 query heads on 2 KV heads.* of 2 up to 4"),
        (2, 4, {"intermediate_size": 32},
         "2 ranks cannot share 32 hidden units, 32 of which stay together: up to 1 can"),
        (2, 0, {"vocab_size": 1}, "2 ranks cannot share a vocabulary of 1"),
    ],
)  # fmt: skip
def test_refusals_name_the_numbers_on_every_rank(
    ranks: int, bits: int, changed: Any, said: str
) -> None:
    for rank in range(ranks):
        with pytest.raises(ValueError, match=said):
            built(replace(CONFIG, **changed), Place(rank, ranks), bits)


def test_a_group_of_one_changes_nothing() -> None:
    made = model(CONFIG)
    before = dict(made.named_modules())
    made.shard(Place(0, 1))
    assert dict(made.named_modules()) == before


@pytest.mark.parametrize("bits", [0, 4])
def test_parts_are_views_and_q_k_and_v_stay_neighbours(bits: int) -> None:
    """So a rank reads its own parts of mapped files, and a step has as many products as before."""
    config = replace(UNEVEN, head_dim=64, intermediate_size=320)
    whole, made = (built(config, Place(0, 1), bits) for _ in range(2))
    made.load_weights(tree_flatten(whole.parameters()))
    made.shard(Place(1, 2))
    source = dict(tree_flatten(whole.parameters()))
    for name, value in tree_flatten(made.parameters()):
        name = name.replace(".linear.", ".").replace(".embedding.", ".")
        assert np.shares_memory(value.numpy(), source[name].numpy()), name
    nn.prepare(made, CpuDevice(1))
    layer: Any = made.layers[0]
    q, k, v = (layer.self_attn[name].packed for name in ("q_proj", "k_proj", "v_proj"))
    assert k.follows(q) and v.follows(k) and (q.n, k.n, v.n) == (6 * 64, 2 * 64, 2 * 64)
    gate, up = layer.mlp.gate_proj.packed, layer.mlp.up_proj.packed
    assert up.follows(gate) and gate.n == up.n == 192


def test_quantised_heads_come_apart_between_groups_only() -> None:
    made = model(replace(CONFIG, head_dim=48, num_key_value_heads=4))
    nn.replace_with_quantized(made, lambda _, m: (4, 32) if hasattr(m, "to_quantized") else None)
    with pytest.raises(ValueError, match=r"4 heads of 48 .* groups of 32 inputs"):
        made.shard(Place(0, 4))


# ---- parts add up


def built(config: ModelConfig, group: Group, bits: int = 0, dtype: str = "") -> Model:
    """This rank's part of a random model."""
    made = model(config)
    if dtype:
        made.apply(lambda x: x.astype(getattr(mx, dtype)))
    if bits:
        nn.replace_with_quantized(
            made, lambda path, m: (bits, 32) if hasattr(m, "to_quantized") else None
        )
        fill(made)
    made.shard(group)
    return made


def logits(config: ModelConfig, group: Group, **how: Any) -> np.ndarray:
    """By the operations' NumPy forms."""
    made = built(config, group, **how)
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


def agree(config: ModelConfig, ranks: int, **how: Any) -> None:
    whole = logits(config, Place(0, 1), **how)
    same(on_threads(ranks, lambda group: logits(config, group, **how)), whole)


def same(parts: Sequence[np.ndarray], whole: np.ndarray) -> None:
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


def test_a_cache_has_the_heads_of_its_rank() -> None:
    whole = logits(UNEVEN, Place(0, 1))

    def work(group: Group) -> np.ndarray:
        made, out = built(UNEVEN, group), []
        cache = [KVCache() for _ in made.layers]
        for tokens in (TOKENS[:5], TOKENS[5:]):
            out.append(made(mx.array(np.array([tokens], np.int32)), cache=cache).numpy()[0])
        assert cache[0].keys is not None
        assert cache[0].keys.shape[1] == kv_heads_of(UNEVEN, group)
        return np.concatenate(out)

    same(on_threads(2, work), whole)


# ---- in Programs, packed, on CPU devices that share a window

WIDE = replace(CONFIG, head_dim=32, attention_bias=True, mlp_bias=True)
PROGRAMS: list[tuple[ModelConfig, int, dict[str, Any]]] = [
    (VARIANTS["biases"], 2, {}),
    (replace(UNEVEN, tie_word_embeddings=False), 2, {}),
    (UNEVEN, 6, {}),
    (UNEVEN, 2, {"dtype": "bfloat16"}),
    (VARIANTS["one kv head"], 2, {}),
    (WIDE, 2, {"bits": 4}),
    (replace(WIDE, tie_word_embeddings=False), 2, {"bits": 8}),
    (replace(WIDE, num_key_value_heads=1, intermediate_size=128), 4, {"bits": 4}),
]


def run(device: CpuDevice, config: ModelConfig, group: Group, **how: Any) -> np.ndarray:
    """Logits of a runner on one rank's device, a few tokens a step."""
    return paged(built(config, group, **how), config, device, TOKENS, group)


def paged(
    made: nn.Module,
    config: ModelConfig,
    device: CpuDevice,
    tokens: list[int],
    group: Group,
    dtype: str = "exact",
) -> np.ndarray:
    """Of a model that is this rank's part already."""
    room = {"num_kv_blocks": 4, "max_model_len": min(64, config.max_position_embeddings)}
    options = EngineOptions(device="cpu", dtype=dtype, threads=device.threads, **room)
    numbers = precision(config, options, False)
    nn.prepare(made, device, numbers.matmul_inputs)
    pages = kv_cache_config(config, options, numbers, None, "cpu", group)
    runner = ModelRunner(made, config, device, options, pages)
    runner.make_graphs()
    return paged_logits(runner, tokens, 5)


@pytest.mark.parametrize(("config", "ranks", "how"), PROGRAMS)
def test_programs_of_ranks_make_what_one_makes(
    config: ModelConfig, ranks: int, how: dict[str, Any]
) -> None:
    whole = logits(config, Place(0, 1), **how)
    np.testing.assert_allclose(
        run(CpuDevice(1), config, Place(0, 1), **how), whole, atol=3e-5 * np.abs(whole).max()
    )  # and compiles most kernels, once
    outs = shared((ranks, *whole.shape))

    def work(device: CpuDevice, rank: int) -> None:
        outs[rank] = run(device, config, Place(rank, ranks), **how)

    on_ranks(ranks, 1, work)
    same(outs, whole)
