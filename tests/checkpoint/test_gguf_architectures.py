"""Every architecture through GGUF: the same model, to the bit of its exact logits.

`golden/architectures` are tiny random models that transformers made; `gguf_folder` writes them as
llama.cpp's converter would.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import nanocupy.core as mx
from checkpoint import tiny
from checkpoint.gguf_folder import to_gguf
from checkpoint.test_convert import HALVES
from models.test_llama import logits, runner
from nanocupy import models
from nanocupy.checkpoint import Checkpoint, convert_gguf
from nanocupy.checkpoint.gguf.blocks import BLOCK_FORMATS

GOLDEN = Path(__file__).parent.parent / "golden" / "architectures"
TOKENS = np.array([[5, 9, 31, 2, 60, 17, 17, 33, 8, 1, 44, 45, 46, 20, 3, 7] * 3], np.int32)

CASES: dict[str, dict[str, Any]] = {
    # what llama.cpp's files cannot say is taken out of the config, for both
    "llama": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    },
    "llama_linear": {},
    "llama_yarn": {},
    "mistral": {"sliding_window": None},
    "mistral_nemo": {},
    "mixtral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe_plain": {"norm_topk_prob": True},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3": {"query_pre_attn_scalar": 16},
    "phi3": {},
    "phi3_longrope": {},
    "smollm3": {},
    "olmo2": {},
    "granite": {},
}


def variant(case: str, out: Path) -> Path:
    """The golden model with another config."""
    shutil.copytree(GOLDEN / case, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | CASES[case]))
    return out


def dense_logits(folder: Path) -> tuple[np.ndarray, Any]:
    with Checkpoint(folder) as checkpoint:
        made = models.load(checkpoint)
        return made(mx.array(TOKENS)).numpy()[0], checkpoint.config


@pytest.mark.parametrize("case", CASES)
def test_the_same_model_comes_back(case: str, tmp_path: Path) -> None:
    folder = variant(case, tmp_path / "model")
    to_gguf(folder, tmp_path / "m.gguf")
    back = convert_gguf(tmp_path / "m.gguf", tmp_path / "back", progress=False)
    want, config = dense_logits(folder)
    got, ours = dense_logits(back)
    rounded = 2e-6 if case == "phi3_longrope" else 0.0  # its factors are float32 in a GGUF
    np.testing.assert_allclose(got, want, rtol=0, atol=rounded * np.abs(want).max())
    assert ours.model_type == config.model_type.replace("mistral", "llama")
    for name in ("windows", "rope_layers", "max_position_embeddings", "rms_norm_eps"):
        assert getattr(ours, name) == getattr(config, name), name


@pytest.mark.parametrize("case", ["mixtral", "phi3", "qwen3_moe_plain", "gemma3"])
def test_quantised_experts_and_fused_weights(case: str, tmp_path: Path) -> None:
    """Q8_0 where rows divide (48 does not: 32 of the experts' columns would)."""
    folder = variant(case, tmp_path / "model")
    to_gguf(folder, tmp_path / "m.gguf", "Q8_0")
    back = convert_gguf(tmp_path / "m.gguf", tmp_path / "back", progress=False)
    want, _ = dense_logits(folder)
    got, _ = dense_logits(back)
    np.testing.assert_allclose(got, want, atol=0.05 * np.abs(want).max())


K_QUANTS = ("Q4_K", "Q6_K", "Q5_K", "Q3_K", "Q2_K", "IQ4_XS", "Q5_0", "Q5_1")


def test_every_type_in_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random blocks of all types in one model, beside the numbers that the gguf library makes of
    them: in exact mode what a Program gives for float32 weights, and near it by default."""
    monkeypatch.setattr(tiny, "HIDDEN", 256)
    monkeypatch.setattr(tiny, "MLP", 256)
    rng, matrices = np.random.default_rng(4), itertools.count()
    made: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]] = {}

    def blocks(writer: gguf.GGUFWriter, name: str, array: np.ndarray, kind: str) -> np.ndarray:
        if array.ndim == 1:
            writer.add_tensor(name, array)
            return array
        if name not in made:
            made[name] = random_blocks(K_QUANTS[next(matrices) % len(K_QUANTS)], array.shape, rng)
        raw, of = made[name]
        plain = gguf.quants.dequantize(raw, of)
        if kind == "F32":
            writer.add_tensor(name, plain)
        else:
            writer.add_tensor(name, raw, raw_dtype=of)
        return plain

    monkeypatch.setattr(tiny, "_add", blocks)
    found = {}
    for kind in ("F32", "all"):
        tiny.write_gguf(tmp_path / f"{kind}.gguf", kind)
        folder = convert_gguf(tmp_path / f"{kind}.gguf", tmp_path / kind, progress=False)
        with Checkpoint(folder) as checkpoint:
            for dtype in ("exact", "auto"):
                run = runner(models.load(checkpoint), checkpoint.config, dtype=dtype)
                found[kind, dtype] = logits(run, TOKENS[0].tolist(), 16)
    want = found["F32", "exact"]
    largest = np.abs(want).max()
    assert len(made) > len(K_QUANTS) and largest > 0.1
    np.testing.assert_allclose(found["all", "exact"], want, atol=3e-5 * largest)
    np.testing.assert_allclose(found["all", "auto"], want, atol=1e-2 * largest)


def random_blocks(
    kind: str, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """Blocks of random bytes with small scales, as rows, and their type."""
    block = BLOCK_FORMATS[kind]
    size = shape[-1] // block.elements, block.nbytes
    raw = rng.integers(0, 256, (*shape[:-1], *size), dtype=np.uint8)
    for at in HALVES[kind]:
        small = rng.uniform(1e-4, 3e-4, raw.shape[:-1]).astype("<f2")
        raw[..., at : at + 2] = small[..., None].view(np.uint8)
    return raw.reshape(*shape[:-1], -1), gguf.GGMLQuantizationType[kind]


def test_factors_that_no_rule_gives_are_kept(tmp_path: Path) -> None:
    """Llama 3's scaling from another length than 8192: by frequency, as the file has it."""
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama", folder)
    to_gguf(folder, tmp_path / "m.gguf")
    back = convert_gguf(tmp_path / "m.gguf", tmp_path / "back", progress=False)
    assert json.loads((back / "config.json").read_text())["rope_scaling"]["rope_type"] == "longrope"
    want, _ = dense_logits(folder)
    got, _ = dense_logits(back)
    np.testing.assert_allclose(got, want, atol=1e-6 * np.abs(want).max())


def test_what_changes_the_maths_and_is_not_read_is_refused(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", extra=[("llama.attention.temperature_scale", 0.1)])
    with pytest.raises(ValueError, match=r"llama.attention.temperature_scale 0.1.*not supported"):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
