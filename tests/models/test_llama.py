"""Llama: the same file dense and paged, from checkpoints of every kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from checkpoint.tiny import write_gguf
from nanocupy import models, nn
from nanocupy.checkpoint import Checkpoint, ModelConfig, RopeConfig, convert_gguf
from nanocupy.checkpoint.rope_config import llama3_freqs
from nanocupy.distributed import ONE
from nanocupy.engine.batch import SampleRow, Scheduled
from nanocupy.engine.devices import make_device
from nanocupy.engine.kv_cache import kv_cache_config
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.precision import precision
from nanocupy.engine.runner import ModelRunner
from nanocupy.models.cache import KVCache
from nanocupy.models.llama import Model
from nanocupy.utils import tree_flatten

CONFIG = ModelConfig(
    model_type="llama",
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=120,
    rms_norm_eps=1e-5,
    rope=RopeConfig(10000.0),
    max_position_embeddings=256,
    tie_word_embeddings=True,
    attention_bias=False,
    mlp_bias=False,
    hidden_act="silu",
    dtype="float32",
    quantization=None,
    eos_token_ids=(0,),
    bos_token_id=None,
    raw={},
)
LLAMA3 = RopeConfig(10000.0, "llama3", 8.0, 1.0, 4.0, 64)
VARIANTS = {
    "tied": CONFIG,
    "untied": replace(CONFIG, tie_word_embeddings=False),
    "biases": replace(CONFIG, attention_bias=True, mlp_bias=True),
    "one kv head": replace(CONFIG, num_key_value_heads=1, head_dim=32, num_attention_heads=3),
    "linear rope": replace(CONFIG, rope=RopeConfig(10000.0, "linear", 4.0)),
    "llama3 rope": replace(CONFIG, rope=LLAMA3),
    "odd sizes": replace(CONFIG, hidden_size=48, intermediate_size=80, vocab_size=77),
}


def model(config: ModelConfig, seed: int = 0) -> Model:
    made, rng = Model(config), np.random.default_rng(seed)
    made.load_weights(
        [
            (n, mx.array((rng.standard_normal(a.shape) * 0.2).astype(np.float32)))
            for n, a in tree_flatten(made.parameters())
        ]
    )
    return made


def runner(made: Any, config: Any, **options: Any) -> ModelRunner:
    default = {"device": "cpu", "dtype": "exact", "threads": 2, "num_kv_blocks": 20}
    chosen = EngineOptions(**default | options)
    device = make_device(chosen, ONE)
    numbers = precision(config, chosen, device.half_precision)
    nn.prepare(made, device, numbers.matmul_inputs)
    made_of = kv_cache_config(config, chosen, numbers, None, device.kind)
    run = ModelRunner(made, config, device, chosen, made_of)
    run.make_graphs()
    return run


def logits(run: ModelRunner, tokens: list[int], chunk: int) -> np.ndarray:
    """Teacher-forced, `chunk` tokens a step, in a block table of no particular order."""
    table = [*range(run.num_blocks - 1, 0, -1)][: -(-len(tokens) // run.block_size)]
    out = []
    for start in range(0, len(tokens), chunk):
        part = tokens[start : start + chunk]
        rows = [SampleRow(i, 0.0, 0, 1.0, 0.0, 0.0, None, -1, 0) for i in range(len(part))]
        run.step([Scheduled(None, start, part, table, rows)])  # type: ignore[arg-type]
        out.append(run.device.read(run.program.outputs[2][: len(part)]).copy())
    return np.concatenate(out)


TOKENS = [int(t) for t in np.random.default_rng(9).integers(0, 77, 40)]


@pytest.mark.parametrize("name", VARIANTS)
def test_paged_agrees_with_dense(name: str) -> None:
    """The same model file by the operations' NumPy forms, whole, and in the engine's Program."""
    config = VARIANTS[name]
    made = model(config)
    dense = made(mx.array(np.array([TOKENS], np.int32))).numpy()[0]
    for chunk in (40, 7, 1):
        paged = logits(runner(made, config), TOKENS, chunk)
        np.testing.assert_allclose(paged, dense, atol=2e-5 * np.abs(dense).max())


def test_a_plain_cache_continues_where_it_stopped() -> None:
    made = model(CONFIG)
    whole = made(mx.array(np.array([TOKENS], np.int32))).numpy()[0]
    cache = [KVCache() for _ in made.layers]
    parts = [TOKENS[:13], TOKENS[13:14], TOKENS[14:]]
    got = [made(mx.array(np.array([p], np.int32)), cache=cache).numpy()[0] for p in parts]
    np.testing.assert_allclose(np.concatenate(got), whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize(
    "options",
    [{"dtype": "exact"}, {"dtype": "auto"}, {"kv_dtype": "bfloat16"}, {"kv_dtype": "int8"}],
)
def test_chunks_blocks_threads_and_capture_change_no_bit(options: dict[str, Any]) -> None:
    made = [model(CONFIG) for _ in range(6)]
    want = logits(runner(made[0], CONFIG, **options), TOKENS, 40)
    for number, (chunk, other) in enumerate(
        [
            (1, {}),
            (7, {"threads": 1}),
            (16, {"threads": 3, "block_size": 32}),
            (40, {"block_size": 64, "capture": False}),
            (9, {"capture": False}),
        ]
    ):
        got = logits(runner(made[number + 1], CONFIG, **options, **other), TOKENS, chunk)
        assert np.array_equal(got, want), (chunk, other)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_checkpoints_of_every_kind_run(kind: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", kind)
    folder = convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out", progress=False)
    with Checkpoint(folder) as checkpoint:
        made, config = models.load(checkpoint), checkpoint.config
        dense = made(mx.array(np.array([TOKENS], np.int32))).numpy()[0]
        paged = logits(runner(made, config), TOKENS, 40)
    np.testing.assert_allclose(paged, dense, atol=1e-4 * np.abs(dense).max())


@pytest.mark.parametrize("dtype", ["auto", "int8"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_rounded_activations_come_near(kind: str, dtype: str, tmp_path: Path) -> None:
    """And to the same bits whether all rows are wanted or some, alone or together."""
    write_gguf(tmp_path / "tiny.gguf", kind)
    folder = convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out", progress=False)
    with Checkpoint(folder) as checkpoint:
        made, config = models.load(checkpoint), checkpoint.config
        dense = made(mx.array(np.array([TOKENS], np.int32))).numpy()[0]
        run = runner(made, config, dtype=dtype)
    paged = logits(run, TOKENS, 40)
    apart = np.abs(paged - dense).max(axis=1) / np.abs(dense).max()
    assert np.median(apart) < 0.1  # where weights are random, some rows tip over
    assert np.array_equal(logits(run, TOKENS, 7), paged)
    assert np.array_equal(logits(run, TOKENS, 1), paged)


def test_llama3_stretch_leaves_short_waves_and_divides_long_ones() -> None:
    plain = 10000.0 ** (np.arange(0, 16, 2) / 16)
    freqs = llama3_freqs(16, LLAMA3)
    assert np.array_equal(freqs[:1], plain[:1]) and freqs[-1] == plain[-1] * 8
    assert (freqs >= plain).all() and (freqs <= plain * 8).all()


def test_weights_are_accounted_for() -> None:
    made = Model(CONFIG)
    given = [(n, a) for n, a in tree_flatten(made.parameters()) if "norm" not in n]
    given += [("model.extra.weight", mx.zeros((3,)))]
    given[0] = (given[0][0], mx.zeros((2, 2)))
    with pytest.raises(ValueError) as error:
        made.load_weights(given)
    for part in ("missing model.norm.weight [64]", "unexpected model.extra.weight", "[2, 2] where"):
        assert part in str(error.value)
