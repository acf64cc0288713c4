"""Gemma 3 270M (Q4_K_M): a real GGUF file with SentencePiece and five kinds of tensors, beside
llama.cpp in float32 (`golden/make_gemma.py`). Skipped where the file is not in the cache or
installed: `nanocupy info gemma3-270m` fetches it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.test_llama import logits, runner
from nanocupy import LLM, SamplingParams, models
from nanocupy.checkpoint import Checkpoint, locate, resolve
from nanocupy.text import Tokenizer

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def folder() -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOCUPY_OFFLINE", "1")
        try:
            return resolve("gemma3-270m", progress=False)
        except ValueError:
            return pytest.skip("gemma3-270m is not here")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "gemma3_270m.npz") as file:
        return dict(file)


def make() -> Any:
    """The script that made the golden, without llama.cpp."""
    spec = importlib.util.spec_from_file_location("make_gemma", GOLDEN / "make_gemma.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "llama_cpp", type(sys)("llama_cpp"))
        sys.modules["llama_cpp"].Llama = None  # type: ignore[attr-defined]
        spec.loader.exec_module(module)
    return module


def test_tokens(folder: Path, golden: dict[str, np.ndarray]) -> None:
    tokenizer = Tokenizer(folder)
    for i, text in enumerate(make().TEXTS):
        assert tokenizer.encode(text) == golden[f"ids{i}"].tolist()
        assert tokenizer.decode(golden[f"ids{i}"].tolist()) == text
    assert tokenizer.eos_ids == (1, 106)


@pytest.mark.parametrize("dtype", ["exact", "auto"])
def test_logits(folder: Path, golden: dict[str, np.ndarray], dtype: str) -> None:
    with Checkpoint(folder) as checkpoint:
        run = runner(models.load(checkpoint), checkpoint.config, dtype=dtype)
    for i in range(3):
        got = logits(run, golden[f"ids{i}"].tolist(), 32).astype(np.float64)
        got -= got.max(-1, keepdims=True)
        got -= np.log(np.exp(got).sum(-1, keepdims=True))
        want = golden[f"logprobs{i}"]
        assert (got.argmax(-1) == golden[f"top{i}"][:, 0]).all()
        np.testing.assert_allclose(np.take_along_axis(got, golden[f"top{i}"], 1), want, atol=0.05)


def test_answers(folder: Path, golden: dict[str, np.ndarray]) -> None:
    params = SamplingParams(temperature=0, max_tokens=32)
    with LLM(folder, max_model_len=256) as llm:
        for i, out in enumerate(llm.generate(list(make().PROMPTS), params)):
            assert out.outputs[0].text == str(golden[f"answer{i}"])


def test_its_sources_are_pinned() -> None:
    model = locate.GEMMA
    assert len(model.requirements) == 4 and all(r.endswith("==1.0.0") for r in model.requirements)
