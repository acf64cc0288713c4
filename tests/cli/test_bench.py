"""`nanocupy bench`: the load is nano-vLLM's, and the figures are what the model did."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from golden import prove_mlx_lm
from nanocupy.cli import bench
from nanocupy.cli.measure import interleaved, nano_vllm_load


def test_the_load_is_nano_vllm_s() -> None:
    load = nano_vllm_load(1)
    assert len(load.prompts) == 256 and sum(load.new_tokens) == 133_966
    assert sum(map(len, load.prompts)) == 142_827
    assert load.prompts[0][:3] != load.prompts[1][:3] and load.longest <= 2048


def test_scale_shrinks_requests_and_lengths() -> None:
    whole, part = nano_vllm_load(1), nano_vllm_load(0.125)
    assert len(part.prompts) == 32
    assert part.prompts[0] == whole.prompts[0][: round(len(whole.prompts[0]) / 8)]
    assert nano_vllm_load(0) == ([], [])


def test_runs_take_turns_and_the_median_counts() -> None:
    said: list[str] = []
    values = iter([1.0, 10.0, 5.0, 20.0, 2.0, 90.0])
    found = interleaved({"a": lambda: next(values), "b": lambda: next(values)}, 3, said.append)
    assert found == {"a": 2.0, "b": 20.0}
    assert said[:2] == ["a (1 of 3)", "b (1 of 3)"]


def test_the_part_of_the_limit() -> None:
    figure = bench._decode(needed=100_000_000, rate=50, limit=10)
    assert figure["gb_per_s"] == 5 and figure["of_the_limit"] == 0.5


def test_room_for_the_longest_measurement() -> None:
    args = argparse.Namespace(contexts=[1000], decode_tokens=64, prompt_lengths=[512])
    assert bench._longest(args, nano_vllm_load(0)) == 1065


def test_more_than_the_model_has_room_for(cli, tmp_path: Path) -> None:
    prove_mlx_lm.draw(tmp_path / "m", "llama")
    model = ("bench", "--model", str(tmp_path / "m"), "--scale", "0", "--prompt-lengths", "16")
    ran = cli(*model, "--contexts", "99999")
    assert ran.code == 2 and "takes 100,064 tokens" in ran.err and "lower --contexts" in ran.err
    ran = cli(*model, "--contexts", "16", "--decode-tokens", "9", "--max-model-len", "20")
    assert ran.code == 2 and "--max-model-len is less: lower --contexts" in ran.err


@pytest.mark.slow
def test_a_small_run_of_it_all(cli, real_model: Path) -> None:
    small = ("--prompt-lengths", "16", "--contexts", "16", "--decode-tokens", "8", "--repeats", "1")
    ran = cli("bench", "--model", str(real_model), *small, "--scale", "0.01", "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert said["prefill"][0]["tokens_per_s"] > 0 and said["limit_gb_per_s"] > 0
    assert 0 < said["decode"][0]["of_the_limit"] < 1.5
    assert said["batch"]["requests"] == 3
