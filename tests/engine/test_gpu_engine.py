"""The engine on the emulated GPU: the CUDA device's own code, on the CPU, with a tiny model.

The tokens agree with the CPU device's, captured equals eager to the bit, and every way through the
runner is taken: sizes of steps, padding rows, preemption, prefix hits.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from device.needs import needs_compiler
from models.test_llama import CONFIG, TOKENS, logits, model, runner
from nanocupy.engine.buckets import Bucket, buckets, smallest
from nanocupy.engine.engine import Engine
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.params import SamplingParams

pytestmark = needs_compiler
SIZES: dict[str, Any] = {"max_num_seqs": 4, "max_num_batched_tokens": 48, "num_kv_blocks": 20}
GPU = {"device": "emulated", **SIZES}
PROMPTS = [TOKENS[:5], TOKENS[:33], TOKENS[3:20], TOKENS[:33] + TOKENS[:4], TOKENS[7:9]]
LLAMA = {
    "plain": CONFIG,
    "biases": replace(CONFIG, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "odd sizes": replace(CONFIG, hidden_size=48, intermediate_size=80, vocab_size=77),
    "one kv head": replace(CONFIG, num_key_value_heads=1, head_dim=32, num_attention_heads=3),
}
CLOSE = {"exact": 2e-5, "float16": 2e-3, "bfloat16": 2e-2}  # of the largest logit


def cpu(config: Any = CONFIG) -> np.ndarray:
    return logits(runner(model(config), config, dtype="exact"), TOKENS, 40)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", LLAMA)
def test_logits_agree_with_the_cpu(name: str, dtype: str) -> None:
    """Teacher-forced: prompts in tiles, short chunks, single tokens."""
    config = LLAMA[name]
    want = cpu(config)
    for chunk in (40, 7, 1):
        got = logits(runner(model(config), config, **{**GPU, "dtype": dtype}), TOKENS, chunk)
        assert np.abs(got - want).max() <= CLOSE[dtype] * np.abs(want).max(), chunk


@pytest.mark.parametrize("kv_dtype", ["float32", "float16"])
def test_a_cache_of_another_dtype(kv_dtype: str) -> None:
    options = {**GPU, "dtype": "bfloat16", "kv_dtype": kv_dtype}
    got = logits(runner(model(CONFIG), CONFIG, **options), TOKENS, 7)
    assert np.abs(got - cpu()).max() <= CLOSE["bfloat16"] * np.abs(got).max()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", CLOSE)
def test_affine_weights(bits: int, dtype: str) -> None:
    want = logits(runner(quantised(bits), CONFIG, dtype="exact"), TOKENS, 40)
    for chunk in (40, 1):
        got = logits(runner(quantised(bits), CONFIG, **{**GPU, "dtype": dtype}), TOKENS, chunk)
        assert np.abs(got - want).max() <= CLOSE[dtype] * np.abs(want).max()


def quantised(bits: int) -> Any:
    """A model with random codes; weights are about as large as `model`'s."""
    from nanocupy import core, nn
    from nanocupy.utils import tree_flatten

    made, rng = model(CONFIG), np.random.default_rng(1)
    nn.replace_with_quantized(made, lambda *_: (bits, 32))

    def filled(name: str, old: Any) -> Any:
        if old.dtype == core.uint32:
            return rng.integers(0, 2**32, old.shape, dtype=np.uint32)
        if name.endswith("biases"):
            return np.full(old.shape, -0.3, np.float32)
        if name.endswith("scales"):
            return np.full(old.shape, 0.6 / (2**bits - 1), np.float32)
        return old.numpy()

    weights = tree_flatten(made.parameters())
    made.load_weights([(name, core.array(filled(name, old))) for name, old in weights])
    return made


# ---- the engine


def engine(**options: Any) -> Engine:
    chosen = {**GPU, "dtype": "bfloat16"} | options
    return Engine(runner(model(CONFIG), CONFIG, **chosen), EngineOptions(**chosen))


def greedy(count: int = 6, **how: Any) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, **how)


def answers(to: Engine, prompts: list[list[int]], *params: SamplingParams) -> list[list[int]]:
    """The tokens of each prompt, all asked for at once."""
    ids = [to.add(p, params[i % len(params)]) for i, p in enumerate(prompts)]
    found: dict[str, list[int]] = {}
    while to.has_work:
        for chunk in to.step():
            if chunk.output is not None:
                assert chunk.output.error is None, chunk.output.error
                found[chunk.request_id] = chunk.output.outputs[0].token_ids
    return [found[id] for id in ids]


SEEDED = SamplingParams(
    temperature=0.8, top_p=0.9, top_k=20, seed=5, max_tokens=6, ignore_eos=True, logprobs=2,
    repetition_penalty=1.2, presence_penalty=0.1,
)  # fmt: skip


def test_tokens_agree_with_the_cpu() -> None:
    """In exact mode, where the two differ by roundings only."""
    params = (greedy(), SEEDED)
    want = answers(engine(device="cpu", dtype="exact"), PROMPTS, *params)
    assert answers(engine(dtype="exact"), PROMPTS, *params) == want


def test_captured_is_eager_to_the_bit() -> None:
    runs = [engine(capture=capture) for capture in (True, False)]
    results = [answers(e, PROMPTS, greedy(), SEEDED) for e in runs]
    assert results[0] == results[1]
    pages = [
        np.stack([device_pages(e, layer)[1:] for layer in range(2)])  # block 0 is a dump
        for e in runs
    ]
    assert pages[0].tobytes() == pages[1].tobytes()


def device_pages(to: Engine, layer: int) -> np.ndarray:
    runner: Any = to.runner
    return np.stack([runner.device.read(part).astype(np.float32) for part in runner.pages[layer]])


def test_prefix_hits_and_preemption_change_no_answer() -> None:
    want = [answers(engine(), [p], greedy(20))[0] for p in PROMPTS]
    warm = engine()
    answers(warm, [PROMPTS[1]], greedy(1))
    assert answers(warm, PROMPTS, greedy(20)) == want
    small = engine(num_kv_blocks=5)
    assert answers(small, PROMPTS, greedy(20)) == want


def test_prompt_logprobs_agree_with_the_cpu() -> None:
    found = []
    for options in ({"dtype": "exact"}, {"device": "cpu", "dtype": "exact"}):
        to = engine(**options)
        to.add(PROMPTS[1], greedy(2, prompt_logprobs=3, logprobs=1))
        [output] = [c.output for _ in range(9) if to.has_work for c in to.step() if c.output]
        assert output.prompt_logprobs is not None
        found.append([next(iter(p.values())).logprob for p in output.prompt_logprobs[1:] if p])
    np.testing.assert_allclose(*found, atol=1e-4)


def test_nobody_reads_before_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that does nothing until somebody waits for it gives the same answers."""
    from nanocupy.device import emulated

    want = answers(engine(), PROMPTS, greedy(), SEEDED)
    late = partial(emulated.EmulatedDevice, late=True)
    monkeypatch.setattr(emulated, "EmulatedDevice", late)
    assert answers(engine(), PROMPTS, greedy(), SEEDED) == want


def test_a_step_is_one_graph_one_upload_and_one_download() -> None:
    to = engine()
    device = to.runner.device  # type: ignore[attr-defined]
    for params in (greedy(), replace(SEEDED, logprobs=None)):
        for prompt in PROMPTS[:3]:
            to.add(prompt, params)
        while to.has_work:
            before = device.counters.copy()
            to.step()
            assert device.counters - before == {"graphs": 1, "uploads": 1, "downloads": 1}


def test_at_most_ten_launches_a_layer() -> None:
    """A GEMM counted once; three layers have one more than two."""
    counts = []
    for layers in (2, 3):
        config = replace(CONFIG, num_hidden_layers=layers)
        run: Any = runner(model(config), config, **{**GPU, "dtype": "bfloat16"})
        to = run.buffers
        sizes = [
            [
                (to.rows, b.rows),
                (to.split.decode_count, b.decode_rows),
                (to.split.tile_count, b.prefill_tiles),
            ]
            for b in run.buckets
        ]
        counts.append([len(run.program.launches(s)) for s in sizes])
    each = set(np.subtract(counts[1], counts[0]).tolist())
    assert each == {9, 10}  # without and with rows of prompts


# ---- sizes


@pytest.mark.parametrize(("rows", "seqs", "tile"), [(512, 32, 64), (48, 4, 16), (100, 100, 0)])
def test_the_largest_size_holds_every_step(rows: int, seqs: int, tile: int) -> None:
    samples = max(64, seqs)
    sizes = buckets(rows, samples, seqs, tile)
    assert Bucket(seqs, seqs, seqs, 0) in sizes and sizes[-1].rows == rows
    tiles = rows // tile + seqs if tile else 0
    most = Bucket(rows, samples, min(seqs, rows) if tile else rows, min(tiles, rows))
    assert sizes[smallest(sizes, most)] == sizes[-1]
    assert smallest(sizes, Bucket(1, 1, 1, 0)) == 0


def test_padding_rows_write_nowhere() -> None:
    """Three requests in a size of four: the pages nobody was given stay as they were."""
    to = engine()
    untouched = device_pages(to, 0).copy()
    answers(to, PROMPTS[:3], greedy(4))
    pages = device_pages(to, 0)
    changed = {b for b in range(pages.shape[1]) if not np.array_equal(pages[:, b], untouched[:, b])}
    assert 0 not in changed and len(changed) <= 1 + 3 + 2
