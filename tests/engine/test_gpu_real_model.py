"""The real model on the emulated GPU, a few tokens, beside the CPU's. And the benchmark runs."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from device.needs import needs_compiler
from models.test_llama import CONFIG, model
from nanocupy import LLM, SamplingParams
from nanocupy.utils import tree_flatten
from text import tiny_tokenizers

pytestmark = [needs_compiler, pytest.mark.slow]
SMALL = {"max_num_seqs": 2, "max_num_batched_tokens": 16, "num_kv_blocks": 8, "progress": False}
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_it_says_what_the_cpu_says(real_model: Path) -> None:
    """4-bit weights, bfloat16: the same tokens, logprobs within what bfloat16 rounds."""
    params = SamplingParams(temperature=0, max_tokens=3, logprobs=2, ignore_eos=True)
    answers = []
    for options in ({"device": "emulated"}, {"device": "cpu", "dtype": "exact"}):
        llm = LLM(real_model, **options, **SMALL)
        answers.append(llm.generate("The capital of France is", params)[0].outputs[0])
        llm.close()
    got, want = answers
    assert got.token_ids == want.token_ids and "Paris" in got.text
    assert got.logprobs is not None and want.logprobs is not None
    pairs = zip(got.token_ids, got.logprobs, want.logprobs, strict=True)
    apart = [theirs[token].logprob - ours[token].logprob for token, ours, theirs in pairs]
    assert np.abs(apart).max() < 0.02


def save_tiny(folder: Path) -> None:
    """A model of two layers with a vocabulary as large as nano-vLLM's random prompts want."""
    config = replace(CONFIG, vocab_size=10_240, max_position_embeddings=2048)
    weights = tree_flatten(model(config).parameters())
    save_file({name: value.numpy() for name, value in weights}, folder / "model.safetensors")
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
        "tie_word_embeddings", "hidden_act",
    )  # fmt: skip
    about = {name: getattr(config, name) for name in names}
    about |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(about))
    tiny_tokenizers.save(tiny_tokenizers.byte_level(), folder)


def test_a_share_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks for what is left of the share; after `close` the memory is there again, at once."""
    from nanocupy.device import emulated

    save_tiny(tmp_path)
    total = 96 << 20
    monkeypatch.setattr(emulated, "EmulatedDevice", partial(emulated.EmulatedDevice, memory=total))
    sizes: dict[str, Any] = {"max_num_seqs": 64, "max_num_batched_tokens": 64, "progress": False}
    gc.collect()
    gc.disable()
    try:
        found = []
        for share in (0.4, 0.4, 0.5):
            llm = LLM(tmp_path, device="emulated", gpu_memory_utilization=share, **sizes)
            runner: Any = llm.engine.runner
            device, blocks = runner.device, runner.num_blocks
            used = total - device.memory_free()
            assert 0.9 * share * total < used <= share * total
            found.append(blocks)
            llm.close()
            del llm, runner
            left = device.memory_active()
            assert left < 0.2 * total  # weights, until the model goes
        assert found[0] == found[1] < found[2]
    finally:
        gc.enable()
    with pytest.raises(ValueError, match="gpu-memory-utilization"):
        LLM(tmp_path, device="emulated", gpu_memory_utilization=0.05, **sizes)
    with pytest.raises(ValueError, match="made for 2048 positions"):
        LLM(tmp_path, device="emulated", max_model_len=4096, **sizes)


@pytest.mark.skipif(not BENCHMARK.exists(), reason="benchmarks are not in this distribution")
def test_the_benchmark_runs(tmp_path: Path) -> None:
    """Every part of benchmarks/gpu.py, on a tiny random model: figures mean nothing here."""
    save_tiny(tmp_path)
    command = [sys.executable, str(BENCHMARK), "--model", str(tmp_path), "--device", "emulated"]
    ran = subprocess.run([*command, "--tiny", "--json"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert set(report) == {"right", "kernels", "engine", "load"}
    assert all(row["captured_is_eager"] for row in report["right"])
    assert report["right"][0]["largest_logprob_difference"] < 1e-3
    steps = report["kernels"]["steps"]
    names = {row["kernel"] for step in steps for row in step["kernels"]}
    assert {"gemm", "attend_decode", "attend_prefill", "rope_write", "sample"} <= names
    assert all(row["floor"] > 0 for step in steps for row in step["kernels"])
