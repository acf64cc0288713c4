"""Folders whose files are at odds: a head beside tied weights, adapters, numbers of layers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nanocupy.core as mx
from golden import prove_mlx_lm
from nanocupy import models
from nanocupy.checkpoint import Checkpoint
from nanocupy.cli.model import ModelFacts
from nanocupy.models.quantize_checkpoint import convert

FOLDER = Path(__file__).parent.parent / "golden" / "architectures"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TOKENS = [[3, 1, 4, 1, 5]]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a small model, with other tensors and fields."""

    def make(
        case: str, tensors: Callable[[dict[str, Any]], dict[str, Any]] = dict, **fields: Any
    ) -> Path:
        out = tmp_path / f"{case}{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        config = json.loads((FOLDER / case / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, **fields}))
        save_file(
            tensors(load_file(FOLDER / case / "model.safetensors")), out / "model.safetensors"
        )
        return out

    return make


def logits(folder: Path) -> np.ndarray:
    with Checkpoint(folder) as checkpoint:
        made = models.load(checkpoint)
        return np.asarray(made(mx.array(np.array(TOKENS, np.int32))).numpy())


def with_head(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {**tensors, HEAD: change(tensors[EMBEDDING])}


def scaled(w: np.ndarray) -> np.ndarray:
    return (w[::-1] * 1.5).astype(w.dtype).copy()


@pytest.mark.parametrize("case", ["qwen2", "qwen3", "gemma3"])
def test_a_head_beside_tied_weights_is_the_head(folder: Any, case: str) -> None:
    other = folder(case, with_head(scaled), tie_word_embeddings=True)
    untied = folder(case, with_head(scaled), tie_word_embeddings=False)
    assert np.array_equal(logits(other), logits(untied))
    assert not np.array_equal(logits(other), logits(FOLDER / case))
    with Checkpoint(other) as checkpoint:
        assert (
            not checkpoint.config.tie_word_embeddings and "not tied" in checkpoint.config.notes[0]
        )
    assert ModelFacts(str(other)).bytes_per_step == ModelFacts(str(untied)).bytes_per_step


def test_a_head_that_is_the_embedding_stays_tied(folder: Any) -> None:
    same = folder("qwen3", with_head(lambda w: w))
    assert np.array_equal(logits(same), logits(FOLDER / "qwen3"))
    with Checkpoint(same) as checkpoint:
        assert checkpoint.config.tie_word_embeddings and not checkpoint.config.notes


def test_a_head_of_another_last_row_is_another(folder: Any) -> None:
    def last(w: np.ndarray) -> np.ndarray:
        return np.concatenate([w[:-1], w[-1:] + np.asarray(1, w.dtype)])

    with Checkpoint(folder("qwen3", with_head(last))) as checkpoint:
        assert not checkpoint.config.tie_word_embeddings


def test_a_converted_folder_says_that_it_is_not_tied(tmp_path: Path) -> None:
    """Also of a model inside another, where that is said in both."""
    prove_mlx_lm.draw(source := tmp_path / "source", "gemma3 inside")
    with Checkpoint(source) as checkpoint:
        [name] = [n for n in checkpoint.names() if n.endswith("embed_tokens.weight")]
        tensors = {n: checkpoint.read(n).astype(np.float32) for n in checkpoint.names()}
    tensors[HEAD] = scaled(tensors[name])
    save_file(tensors, source / "model.safetensors")
    convert(source, tmp_path / "out", bits=8, group_size=32, progress=False)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["tie_word_embeddings"] is said["text_config"]["tie_word_embeddings"] is False
    near, want = logits(tmp_path / "out"), logits(source)
    assert np.abs(near - want).max() < 0.05 * np.abs(want).max()


@pytest.mark.parametrize(
    "name",
    ["adapter_config.json", "adapter_model.safetensors", "adapters.safetensors", "adapters.npz"],
)
def test_an_adapter_beside_the_weights_is_refused(folder: Any, name: str) -> None:
    """transformers would apply it."""
    (out := folder("llama")).joinpath(name).write_text("{}")
    with pytest.raises(ValueError, match=f"holds an adapter beside the weights .{name}"):
        Checkpoint(out)


def test_an_adapter_in_a_folder_inside_is_told(folder: Any) -> None:
    (inside := folder("llama") / "adapters").mkdir()
    (inside / "adapter_config.json").write_text("{}")
    with Checkpoint(inside.parent) as checkpoint:
        assert checkpoint.config.notes == (f"the adapter in {inside} is not applied",)


@pytest.mark.parametrize(
    ("case", "fields", "message"),
    [
        ("llama", {"num_hidden_layers": 16_000}, "says 16,000 layers, and there are tensors of 2"),
        ("llama", {"num_hidden_layers": 2**31 - 1}, "num_hidden_layers must be .* at most 16,384"),
        ("mixtral", {"num_local_experts": 16_000}, "says 16,000 experts, and there are tensors of"),
        ("qwen3_moe", {"num_experts": 2**31 - 1}, "num_experts must be .* at most 16,384"),
        ("llama", {"num_hidden_layers": 1}, "unexpected model.layers.1"),
        ("llama", {"vocab_size": 2**31 - 1}, "misshapen model.embed_tokens.weight"),
        ("llama", {"intermediate_size": 2**31 - 1}, "misshapen model.layers.0.mlp"),
    ],
)
def test_numbers_are_compared_with_the_tensors_first(
    folder: Any, case: str, fields: dict[str, Any], message: str
) -> None:
    """Not after layers of them were made, which takes all memory."""
    if "num_hidden_layers" in fields:
        fields["layer_types"] = None
    out, start = folder(case, **fields), time.monotonic()
    with pytest.raises(ValueError, match=message):
        logits(out)
    assert time.monotonic() - start < 2


def test_a_long_account_is_short(folder: Any) -> None:
    """Of 5,000 unexpected tensors the first are named."""
    more = {f"model.layers.0.extra{i}.weight": np.zeros(1, np.float32) for i in range(5000)}
    with pytest.raises(ValueError, match=r"(?s)unexpected .*and 4,980 more") as caught:
        logits(folder("llama", lambda tensors: {**tensors, **more}))
    assert len(str(caught.value)) < 5000


def test_a_tensor_with_a_name_of_a_megabyte(folder: Any) -> None:
    name = "x" * 10**6
    with pytest.raises(ValueError, match="has a name of 1,000,000 characters") as caught:
        logits(folder("llama", lambda tensors: {**tensors, name: np.zeros(1, np.float32)}))
    assert len(str(caught.value)) < 1000
