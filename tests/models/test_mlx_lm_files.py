"""mlx-lm's own model files, unchanged, on nanocupy under MLX's names: dense, and in the engine.

mlx-lm is no dependency. Where it is not installed, NANOCUPY_MLX_LM names the folder that holds
`mlx_lm` (as `pip install --no-deps --target FOLDER mlx-lm` makes it); without either, these tests
are skipped. Nothing of mlx-lm runs but the model files and what they import beside them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from models.test_llama import CONFIG, LLAMA3, TOKENS, logits, runner
from nanocupy import nn
from nanocupy.checkpoint import ModelConfig, RopeConfig
from nanocupy.distributed import Group
from nanocupy.models import model_file
from nanocupy.models.llama import Model
from nanocupy.utils import tree_flatten
from ranks import on_threads

ALIASES = model_file.mlx_modules()


def folder() -> Path | None:
    """Where `mlx_lm` lies; found without importing it, which would load much more."""
    if named := os.environ.get("NANOCUPY_MLX_LM"):
        return Path(named) / "mlx_lm"
    spec = importlib.util.find_spec("mlx_lm")
    return Path(spec.origin).parent if spec and spec.origin else None


def mlx_as(aliases: dict[str, Any]) -> AbstractContextManager[None]:
    """While these modules are MLX, mlx-lm's model files can be imported, anew."""
    home = folder()
    assert home is not None
    return model_file.aliased(aliases, home)


@pytest.fixture(scope="module")
def mlx_lm() -> Iterator[dict[str, Any]]:
    """{name: mlx-lm's model file of that name}, imported as if nanocupy were MLX."""
    if folder() is None:
        pytest.skip("mlx-lm is not installed, and NANOCUPY_MLX_LM does not name a folder with it")
    with mlx_as(ALIASES):
        yield {n: importlib.import_module(f"mlx_lm.models.{n}") for n in ("llama", "qwen3")}


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 120,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": LLAMA3.factor,
    "low_freq_factor": LLAMA3.low_freq_factor,
    "high_freq_factor": LLAMA3.high_freq_factor,
    "original_max_position_embeddings": LLAMA3.original_max_position_embeddings,
}
BIASES = {"attention_bias": True, "mlp_bias": True}
LLAMAS: dict[str, tuple[dict[str, Any], ModelConfig]] = {  # as mlx-lm takes it, as we take it
    "tied": ({}, CONFIG),
    "untied": ({"tie_word_embeddings": False}, replace(CONFIG, tie_word_embeddings=False)),
    "biases": (BIASES, replace(CONFIG, **BIASES)),
    "linear rope": (
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        replace(CONFIG, rope=RopeConfig(10000.0, "linear", 4.0)),
    ),
    "llama3 rope": ({"rope_scaling": LLAMA3_SCALING}, replace(CONFIG, rope=LLAMA3)),
}
FILES = [(f"llama, {name}", "llama", args) for name, (args, _) in LLAMAS.items()]
FILES += [
    ("llama, rope of neighbours", "llama", {"rope_traditional": True}),
    ("qwen3", "qwen3", {}),
    ("qwen3, untied", "qwen3", {"tie_word_embeddings": False}),
    ("qwen3, heads wider than the model", "qwen3", {"head_dim": 32, "num_key_value_heads": 1}),
]


def model(file: Any, name: str, **changed: Any) -> Any:
    """mlx-lm's model of a tiny size."""
    return file.Model(file.ModelArgs.from_dict(SIZES | {"model_type": name} | changed))


def filled(made: Any) -> Any:
    """The model with weights that depend only on the parameters' names and shapes."""
    rng = np.random.default_rng(0)

    def random(place: mx.array) -> mx.array:
        if place.dtype == mx.uint32:
            return mx.array(rng.integers(0, 2**32, place.shape, np.uint32))
        return mx.array((0.2 * rng.standard_normal(place.shape)).astype(np.float32))

    places = sorted(tree_flatten(made.parameters()), key=lambda named: named[0])
    return made.load_weights([(name, random(place)) for name, place in places])


def config_of(changed: dict[str, Any]) -> ModelConfig:
    """What the engine's memory plan needs to know."""
    known = ("head_dim", "num_key_value_heads")
    return replace(CONFIG, **{k: v for k, v in changed.items() if k in known})


def dense(made: Any) -> np.ndarray:
    return made(mx.array(np.array([TOKENS], np.int32))).numpy()[0]


@pytest.mark.parametrize(("name", "changed"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_paged_agrees_with_dense(mlx_lm: Any, name: str, changed: dict[str, Any]) -> None:
    made = filled(model(mlx_lm[name], name, **changed))
    want = dense(made)
    for chunk in (40, 7, 1):
        paged = logits(runner(made, config_of(changed)), TOKENS, chunk)
        np.testing.assert_allclose(paged, want, atol=2e-5 * np.abs(want).max(), rtol=0)


def test_heads_that_the_pages_were_not_made_for_are_refused(mlx_lm: Any) -> None:
    made = filled(model(mlx_lm["llama"], "llama", num_key_value_heads=4))
    with pytest.raises(ValueError, match="2 heads of 16"):
        runner(made, CONFIG)


@pytest.mark.parametrize("name", LLAMAS)
def test_their_llama_is_our_llama(mlx_lm: Any, name: str) -> None:
    """The same weights give the same logits; in the engine by the same launches."""
    changed, config = LLAMAS[name]
    theirs, ours = filled(model(mlx_lm["llama"], "llama", **changed)), filled(Model(config))
    want = dense(ours)
    np.testing.assert_allclose(dense(theirs), want, atol=2e-5 * np.abs(want).max(), rtol=0)
    runs = runner(theirs, config), runner(ours, config)
    first, second = ([x.kernel.name for x in run.program.launches()] for run in runs)
    assert first == second
    got, want = (logits(run, TOKENS, 7) for run in runs)
    if config.rope.type == "llama3":  # their frequencies are float32, ours float64
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max(), rtol=0)
    else:
        assert np.array_equal(got, want)


@pytest.mark.parametrize("dtype", ["exact", "auto"])
def test_quantised_layers_take_the_places_of_theirs(mlx_lm: Any, dtype: str) -> None:
    """Their layers are ours: with codes of 4 bits in them, bit for bit what ours give."""
    got = []
    for made in (model(mlx_lm["llama"], "llama"), Model(CONFIG)):
        nn.replace_with_quantized(made, lambda *_: (4, 32))
        got.append(logits(runner(filled(made), CONFIG, dtype=dtype), TOKENS, 9))
    assert np.array_equal(*got)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_their_own_cache_continues_where_it_stopped(mlx_lm: Any, name: str) -> None:
    """mlx-lm's KVCache grows an array in place; with it their files run without an engine."""
    made = filled(model(mlx_lm[name], name))
    kind = sys.modules["mlx_lm.models.cache"].KVCache
    caches, want = [kind() for _ in made.layers], dense(made)
    parts = [TOKENS[:13], TOKENS[13:14], TOKENS[14:]]
    got = [made(mx.array(np.array([p], np.int32)), cache=caches).numpy()[0] for p in parts]
    np.testing.assert_allclose(np.concatenate(got), want, atol=1e-5 * np.abs(want).max(), rtol=0)


def test_sharding_over_one_process_changes_nothing(mlx_lm: Any) -> None:
    made = filled(model(mlx_lm["llama"], "llama"))
    want = dense(made)
    made.shard()
    assert np.array_equal(dense(made), want)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
@pytest.mark.parametrize("form", [None, (4, 32)])
def test_sharding_over_two_ranks(mlx_lm: Any, name: str, form: Any) -> None:
    def made() -> Any:
        one = model(mlx_lm[name], name, hidden_size=128, intermediate_size=192, head_dim=32)
        if form:
            nn.replace_with_quantized(one, lambda *_: form)
        return filled(one)

    def work(group: Group) -> np.ndarray:
        one = made()
        one.shard(group)
        return dense(one)

    want = dense(made())
    for got in on_threads(2, work):
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max(), rtol=0)


@pytest.mark.parametrize("window", [16, 256])
def test_a_sliding_window(mlx_lm: Any, window: int) -> None:
    kinds = {"layer_types": ["full_attention", "sliding_attention"]}
    made = filled(model(mlx_lm["llama"], "llama", sliding_window=window, **kinds))
    want = dense(made)
    got = logits(runner(made, CONFIG), TOKENS, 7)
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max(), rtol=0)
