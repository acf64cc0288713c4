"""Every architecture on tiny random models that transformers made: its logits, and the engine's.

`golden/make_architectures.py` makes them; see `parity` for what is asked for.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from device.needs import needs_compiler
from engine.fake import run as run_all
from engine.fake import token_ids
from models.test_llama import logits, runner
from models.test_shard import fill
from nanocupy import models, nn
from nanocupy.checkpoint import Checkpoint
from nanocupy.checkpoint.architectures import ARCHITECTURES
from nanocupy.distributed import ONE, Group
from nanocupy.engine import load
from nanocupy.engine.devices import make_device
from nanocupy.engine.engine import Engine
from nanocupy.engine.memory import plan
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.precision import precision
from nanocupy.models.base import KVCache
from parity import EXACT_LOGIT
from ranks import Place, on_threads

FOLDER = Path(__file__).parent.parent / "golden" / "architectures"
CASES = sorted(path.name for path in FOLDER.iterdir())


def loaded(case: str) -> tuple[Any, Any]:
    """(model, config), every tensor of the checkpoint accounted for."""
    with Checkpoint(FOLDER / case) as checkpoint:
        return models.load(checkpoint), checkpoint.config


def prompts(case: str) -> list[tuple[list[int], np.ndarray]]:
    """Tokens, and transformers' logits of them."""
    with np.load(FOLDER / case / "golden.npz") as file:
        return [(file[f"ids{n}"].tolist(), file[f"logits{n}"]) for n in range(3)]


def check(got: np.ndarray, want: np.ndarray) -> None:
    """Parity (i): the largest difference as a part of the largest logit; the same argmax."""
    assert np.abs(got - want).max() <= EXACT_LOGIT * np.abs(want).max()
    assert (got.argmax(-1) == want.argmax(-1)).all()


@pytest.mark.parametrize("case", CASES)
def test_as_transformers_has_it_dense(case: str) -> None:
    made, _ = loaded(case)
    for tokens, want in prompts(case):
        check(made(mx.array(np.array([tokens], np.int32))).numpy()[0], want)


@pytest.mark.parametrize("case", CASES)
def test_as_transformers_has_it_in_the_engine(case: str) -> None:
    """In a Program over pages: parity, and the same bits in chunks of any size."""
    for tokens, want in prompts(case)[:2]:
        longest = 16 * -(-len(tokens) // 16)  # Phi-3 turns by it
        made, config = loaded(case)
        whole = logits(runner(made, config, max_model_len=longest), tokens, len(tokens))
        check(whole, want)
    for chunk, block_size in ((7, 32), (1, 16)):
        made, config = loaded(case)
        run = runner(made, config, max_model_len=longest, block_size=block_size)
        assert np.array_equal(logits(run, tokens, chunk), whole), (chunk, block_size)


def test_a_plain_cache_keeps_to_the_window() -> None:
    made, _ = loaded("mistral")
    tokens, want = prompts("mistral")[0]
    cache = [KVCache() for _ in made.layers]
    parts = [tokens[:13], tokens[13:14], tokens[14:]]
    got = [made(mx.array(np.array([part], np.int32)), cache=cache).numpy()[0] for part in parts]
    check(np.concatenate(got), want)


@pytest.mark.parametrize("case", CASES)
def test_batches_chunks_and_cached_prefixes_change_no_token(case: str) -> None:
    """Prompts together, in small chunks, twice (the second time from the cache), as each alone."""
    tokens = prompts(case)[0][0]
    asked = [tokens, tokens[:33] + tokens[:5], tokens[:3], tokens[20:]]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)

    def engine(**options: Any) -> Engine:
        made, config = loaded(case)
        run = runner(made, config, dtype="auto", max_model_len=64, **options)
        return Engine(run, EngineOptions(**options))

    alone = engine(prefix_cache=False)
    want = [token_ids(out) for prompt in asked for out in run_all(alone, [prompt], params)]
    together = engine(chunk=7, max_num_batched_tokens=32)
    for _ in range(2):
        outs = run_all(together, asked, params)
        assert [token_ids(out) for out in outs] == want
    assert outs[0].cached_tokens == 32


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_gemma3_inside_a_model_that_sees(prefix: str, tmp_path: Path) -> None:
    """As transformers 4 and 5 name its tensors; those for images are let be."""
    raw = (FOLDER / "gemma3" / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    header = {name.replace("model.", prefix, 1): entry for name, entry in header.items()}
    place = {"dtype": "BF16", "shape": [2], "data_offsets": [len(data), len(data) + 4]}
    names = json.dumps({**header, "model.vision_tower.bias": place}).encode()
    whole = len(names).to_bytes(8, "little") + names + data + bytes(4)
    (tmp_path / "model.safetensors").write_bytes(whole)
    inner = json.loads((FOLDER / "gemma3" / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": inner, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(outer))
    with Checkpoint(tmp_path) as checkpoint:
        made = models.load(checkpoint)
    tokens, want = prompts("gemma3")[0]
    check(made(mx.array(np.array([tokens], np.int32))).numpy()[0], want)


@pytest.mark.parametrize("case", sorted({*CASES} - {"phi3_longrope"}))
def test_quantised_weights(case: str) -> None:
    """Affine codes of 4 bits: as the operations' NumPy forms in exact mode, and by default the same
    bits in chunks of any size."""
    tokens = prompts(case)[0][0]
    config = replace(loaded(case)[1], hidden_size=64, intermediate_size=96, head_dim=32)
    config = replace(config, expert_size=32)

    def made() -> Any:
        model = models.MODELS[config.model_type](config)
        nn.quantize(model, lambda *_: (4, 32))
        fill(model)
        return model

    dense = made()(mx.array(np.array([tokens], np.int32))).numpy()[0]
    got = logits(runner(made(), config), tokens, 40)
    np.testing.assert_allclose(got, dense, atol=3e-5 * np.abs(dense).max())
    whole, parts = (logits(runner(made(), config, dtype="auto"), tokens, n) for n in (40, 7))
    assert np.array_equal(whole, parts)
    np.testing.assert_allclose(whole, dense, atol=2e-2 * np.abs(dense).max())


MIXTURES = ("mixtral", "qwen3_moe", "qwen3_moe_plain")
NO_CUDA_KERNEL = {"gemma2": "scale", "gemma3": "scale", "granite": "scale"}
NO_CUDA_KERNEL |= dict.fromkeys(MIXTURES, "experts")


@needs_compiler
@pytest.mark.parametrize("case", NO_CUDA_KERNEL)
def test_what_cuda_has_no_kernel_for_is_named(case: str) -> None:
    options = EngineOptions(device="emulated", num_kv_blocks=4, max_num_batched_tokens=32)
    made, config = loaded(case)
    device = make_device(options, ONE)
    numbers = precision(config, options, device.kind)
    nn.prepare(made, device, numbers.weights_meet)
    kv = plan(config, options, numbers, None, device.kind)
    parts = load.Parts(FOLDER / case, config, made, device, numbers, kv)
    said = f"'{config.model_type}' with --device cuda.*{NO_CUDA_KERNEL[case]}.* no CUDA kernel yet"
    with pytest.raises(NotImplementedError, match=said):
        load._build(parts, kv, options, ONE)


@needs_compiler
@pytest.mark.parametrize("case", [c for c in CASES if c not in NO_CUDA_KERNEL])
def test_the_emulated_gpu_agrees(case: str) -> None:
    tokens, want = prompts(case)[0]
    for chunk in (40, 7):
        made, config = loaded(case)
        run = runner(made, config, device="emulated", dtype="exact", max_num_batched_tokens=48)
        check(logits(run, tokens, chunk), want)


UNDIVIDED = ("olmo2", "phi3", "phi3_longrope", *MIXTURES)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks(case: str) -> None:
    """Two and one of the query heads on the KV head that both have; or refused."""
    tokens, want = prompts(case)[0]

    def work(group: Group) -> np.ndarray:
        made, _ = loaded(case)
        made.shard(group)
        return np.array(made(mx.array(np.array([tokens], np.int32))).numpy()[0])

    if case in UNDIVIDED:
        with pytest.raises(ValueError, match="cannot be divided over 2 ranks yet"):
            loaded(case)[0].shard(Place(0, 2))
        return
    for got in on_threads(2, work):
        check(got, want)


def test_files_and_configurations_are_of_the_same_architectures() -> None:
    assert [*models.MODELS] == [*ARCHITECTURES]
    kinds = {loaded(case)[1].model_type for case in CASES}
    assert kinds == {*models.MODELS}
