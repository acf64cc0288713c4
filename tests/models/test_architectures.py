"""Every architecture on tiny random models that transformers made: its logits, and the engine's.

`golden/make_architectures.py` makes them; see `parity` for what is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from device.needs import needs_compiler
from engine.fake import run as run_all
from engine.fake import token_ids
from kernels.ranks import on_ranks, shared
from models.test_llama import logits, runner
from models.test_shard import fill, paged
from nanocupy import models, nn
from nanocupy.checkpoint import Checkpoint, ModelConfig
from nanocupy.checkpoint.architectures import ARCHITECTURES
from nanocupy.device.cpu import host_memory
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.distributed import Group
from nanocupy.engine.engine import Engine
from nanocupy.engine.kv_cache import kv_cache_config
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.precision import Precision
from nanocupy.models.cache import KVCache
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


@pytest.mark.parametrize("free", [1 << 24, 1 << 40])
def test_longrope_goes_by_what_is_asked_for_not_by_memory(
    free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short prompt has the original length's factors, whatever memory there is, unless more
    positions than those are asked for: then it has the long ones, as in a long sequence."""
    monkeypatch.setattr(host_memory, "available", lambda: free)
    monkeypatch.setattr(host_memory, "total", lambda: 1 << 40)
    tokens = prompts("phi3_longrope")[0][0]
    made, config = loaded("phi3_longrope")
    assert config.max_position_embeddings > config.usual_length == 32 < len(tokens)
    short = made(mx.array(np.array([tokens[:20]], np.int32))).numpy()[0]
    long = made(mx.array(np.array([tokens], np.int32))).numpy()[0, :20]
    assert np.abs(short - long).max() > 0.1
    for asked, want in (({}, short), ({"max_model_len": 32}, short), ({"max_model_len": 33}, long)):
        made, config = loaded("phi3_longrope")
        kv = kv_cache_config(config, EngineOptions(**asked), Precision("f32", "float32", "float32"))
        assert kv.max_model_len == asked.get("max_model_len", 32)
        check(logits(runner(made, config, max_model_len=kv.max_model_len), tokens[:20], 20), want)


def test_factors_that_are_alike_bind_no_length() -> None:
    """As GGUF files have them that say what each frequency is divided by."""
    _, config = loaded("phi3_longrope")
    alike = replace(config, rope=replace(config.rope, long=config.rope.short))
    assert alike.usual_length == config.max_position_embeddings


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


@pytest.mark.parametrize("name", ["k_proj", "v_proj"])
def test_keys_and_values_beyond_float16(name: str) -> None:
    """The error names what holds them; and that does."""
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)

    def answer(kv_dtype: str) -> Any:
        made, config = loaded("llama")
        projection = made.model.layers[0].self_attn[name]
        projection.weight = mx.array(projection.weight.numpy().astype(np.float32) * 1e7)
        run = runner(made, config, dtype="auto", kv_dtype=kv_dtype, max_model_len=64)
        return run_all(Engine(run, EngineOptions()), [prompts("llama")[0][0]], params)[0]

    assert "not finite" in answer("float16").error
    assert "65504" in answer("float16").error and "--kv-dtype bfloat16" in answer("auto").error
    assert answer("bfloat16").error is None


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


def quantised(case: str) -> tuple[Callable[[], Any], ModelConfig]:
    """How to make a model of the case with random codes, of sizes that groups of 32 divide."""
    config = replace(loaded(case)[1], hidden_size=64, intermediate_size=128, head_dim=32)
    config = replace(config, expert_size=64)

    def made() -> Any:
        model = models.model_class(config.model_type)(config)
        nn.replace_with_quantized(model, lambda *_: (4, 32))
        fill(model)
        return model

    return made, config


@pytest.mark.parametrize("case", sorted({*CASES} - {"phi3_longrope"}))
def test_quantised_weights(case: str) -> None:
    """Affine codes of 4 bits: as the operations' NumPy forms in exact mode, and by default the same
    bits in chunks of any size."""
    tokens, (made, config) = prompts(case)[0][0], quantised(case)
    dense = made()(mx.array(np.array([tokens], np.int32))).numpy()[0]
    got = logits(runner(made(), config), tokens, 40)
    np.testing.assert_allclose(got, dense, atol=3e-5 * np.abs(dense).max())
    whole, parts = (logits(runner(made(), config, dtype="auto"), tokens, n) for n in (40, 7))
    assert np.array_equal(whole, parts)
    np.testing.assert_allclose(whole, dense, atol=2e-2 * np.abs(dense).max())


IN_OTHER_NUMBERS = [
    ("gemma2", 0, "bfloat16"),
    ("mixtral", 0, "bfloat16"),
    ("mixtral", 4, "exact"),
    ("qwen3_moe_plain", 4, "bfloat16"),
]


@needs_compiler
@pytest.mark.parametrize(("case", "bits", "dtype"), IN_OTHER_NUMBERS)
def test_the_emulated_gpu_in_other_numbers(case: str, bits: int, dtype: str) -> None:
    """As the CPU's exact mode has it. In 16 bits a router may choose another expert here and there,
    where two are nearly equally liked."""
    tokens, how = prompts(case)[0][0], {"device": "emulated", "max_num_batched_tokens": 48}
    made, config = quantised(case) if bits else (lambda: loaded(case)[0], loaded(case)[1])
    want = logits(runner(made(), config), tokens, 40)
    for chunk in (40, 1):
        got = logits(runner(made(), config, dtype=dtype, **how), tokens, chunk)
        bound, share = (3e-5, 1.0) if dtype == "exact" else (3e-2, 0.9)
        near = np.abs(got - want).max(-1) <= bound * np.abs(want).max()
        assert near.mean() >= share, (chunk, near)


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_the_emulated_gpu_agrees(case: str) -> None:
    tokens, want = prompts(case)[0]
    for chunk in (40, 7):
        made, config = loaded(case)
        how = {"device": "emulated", "max_num_batched_tokens": 48, "max_model_len": 64}
        check(logits(runner(made, config, **how), tokens, chunk), want)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks(case: str) -> None:
    """Two and one of the query heads on the KV head that both have."""
    tokens, want = prompts(case)[0]

    def work(group: Group) -> np.ndarray:
        made, _ = loaded(case)
        made.shard(group)
        return np.array(made(mx.array(np.array([tokens], np.int32))).numpy()[0])

    for got in on_threads(2, work):
        check(got, want)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_in_programs(case: str) -> None:
    """The same of packed weights in the engine's steps, on devices that share a window."""
    tokens, want = prompts(case)[0]
    outs = shared((2, *want.shape))

    def work(device: CpuDevice, rank: int) -> None:
        made, config = loaded(case)
        made.shard(Place(rank, 2))
        outs[rank] = paged(made, config, device, tokens, Place(rank, 2))

    on_ranks(2, 1, work)
    check(outs[0], want)
    assert np.array_equal(outs[0], outs[1])


@pytest.mark.parametrize(("dtype", "near"), [("exact", 3e-5), ("auto", 2e-2)])
@pytest.mark.parametrize("case", ["mixtral", "olmo2", "phi3", "qwen3_moe"])
def test_two_ranks_of_quantised_weights(case: str, dtype: str, near: float) -> None:
    """In Programs; q, k and v lie side by side, as in models of real size."""
    tokens, (whole, config) = prompts(case)[0][0], quantised(case)
    want = whole()(mx.array(np.array([tokens], np.int32))).numpy()[0]
    outs = shared((2, *want.shape))

    def work(device: CpuDevice, rank: int) -> None:
        made = whole()
        made.shard(Place(rank, 2))
        outs[rank] = paged(made, config, device, tokens, Place(rank, 2), dtype)

    on_ranks(2, 1, work)
    np.testing.assert_allclose(outs[0], want, atol=near * np.abs(want).max())
    assert np.array_equal(outs[0], outs[1])


def test_files_and_configurations_are_of_the_same_architectures() -> None:
    assert [*models.MODELS] == [*ARCHITECTURES]
    kinds = {loaded(case)[1].model_type for case in CASES}
    assert kinds == {*models.MODELS}
