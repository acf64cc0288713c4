"""Make tests/golden/architectures/*: tiny random models of every architecture by transformers.

    pip install torch transformers safetensors
    python tests/golden/make_architectures.py

A case is a folder: config.json and model.safetensors as `save_pretrained` writes them (bfloat16),
and golden.npz: prompts and transformers' logits of them, computed in float32.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

OUT = Path(__file__).parent / "architectures"
BASE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "pad_token_id": 0,
}
V4, V5 = 4, 5  # whose spelling config.json has
Case = tuple[str, int, dict[str, Any]]


def case(kind: str, spelling: int = V5, **changed: Any) -> Case:
    return kind, spelling, changed


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


STRETCHED = {"factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0, **STRETCHED)
FACTORS = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 1.5, 3.0, 6.0]}
ONE = {"num_hidden_layers": 1}
GEMMA = {"sliding_window": 24, "query_pre_attn_scalar": 24}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
GEMMA3_LAYERS = ["sliding_attention", "sliding_attention", "full_attention"]
CASES: dict[str, Case] = {
    "llama": case("llama", V4, tie_word_embeddings=True, **LLAMA3),
    "llama_linear": case(
        "llama", attention_bias=True, mlp_bias=True, **ONE, **rope("linear", factor=4.0)
    ),
    "llama_yarn": case("llama", V4, **ONE, **rope("yarn", beta_fast=8.0, **STRETCHED)),
    "llama_dynamic": case("llama", V4, **ONE, **rope("dynamic", factor=4.0)),
    "mistral": case("mistral", V4, sliding_window=24),
    "mistral_nemo": case("mistral", sliding_window=None, head_dim=32, **ONE),
    "qwen2": case("qwen2", V4, head_dim=None, tie_word_embeddings=True, sliding_window=24),
    "qwen2_window": case(
        "qwen2", head_dim=None, use_sliding_window=True, sliding_window=24, max_window_layers=1
    ),
    "qwen3": case("qwen3", head_dim=32, tie_word_embeddings=True),
    "gemma2": case("gemma2", V4, **GEMMA),
    "gemma3": case(
        "gemma3_text",
        V4,
        num_hidden_layers=3,
        layer_types=GEMMA3_LAYERS,
        rope_parameters=GEMMA3_ROPE,
        **GEMMA,
    ),
    "phi3": case("phi3", V4, head_dim=None, sliding_window=24),
    "phi3_longrope": case(
        "phi3",
        head_dim=None,
        num_key_value_heads=3,
        original_max_position_embeddings=32,
        **rope("longrope", partial_rotary_factor=0.5, **FACTORS),
    ),
    "smollm3": case("smollm3", V4, head_dim=None, num_hidden_layers=4),
    "olmo2": case("olmo2", head_dim=None),
    "granite": case(
        "granite",
        V4,
        head_dim=None,
        embedding_multiplier=3.0,
        attention_multiplier=0.2,
        residual_multiplier=0.4,
        logits_scaling=2.5,
    ),
    "qwen3_moe": case(
        "qwen3_moe",
        V4,
        num_experts=5,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        norm_topk_prob=True,
        mlp_only_layers=[1],
    ),
    "qwen3_moe_plain": case(
        "qwen3_moe", num_experts=4, num_experts_per_tok=3, moe_intermediate_size=16, **ONE
    ),
    "mixtral": case(
        "mixtral",
        num_local_experts=4,
        num_experts_per_tok=2,
        intermediate_size=24,
        sliding_window=24,
        **ONE,
    ),
}


def make(name: str, kind: str, spelling: int, changed: dict[str, Any]) -> None:
    """One case."""
    wanted = {k: v for k, v in (BASE | changed).items() if v is not None or k == "sliding_window"}
    config = transformers.AutoConfig.for_model(kind, **wanted)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(drawn(parameter_name, parameter))
    golden, folder = logits(model), OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    np.savez_compressed(folder / "golden.npz", **golden)
    if spelling == V4:
        respell(folder / "config.json")


def drawn(name: str, parameter: torch.Tensor) -> torch.Tensor:
    """Random values that bfloat16 holds; norms around the value that does nothing."""
    spread = 0.3 if parameter.ndim == 1 else 0.5 if "embed" in name else 0.15
    centre = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
    return (torch.randn_like(parameter) * spread + centre).bfloat16().float()


def logits(model: Any) -> dict[str, np.ndarray]:
    """Prompts, shorter and longer than windows, and what the model says of each."""
    rng, found = np.random.default_rng(1), {}
    for number, length in enumerate((40, 19, 1)):
        ids = rng.integers(4, BASE["vocab_size"], length)
        with torch.no_grad():
            out = model(torch.tensor(ids)[None], use_cache=False).logits[0]
        found[f"ids{number}"] = ids.astype(np.int32)
        found[f"logits{number}"] = out.numpy().astype(np.float32)
    return found


def respell(path: Path) -> None:
    """config.json as transformers 4 wrote it."""
    config = json.loads(path.read_text())
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.1"
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    parameters = config.pop("rope_parameters")
    if "full_attention" in parameters:
        config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    config["rope_theta"] = parameters.pop("rope_theta")
    parameters.pop("partial_rotary_factor", None)
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    for name, (kind, spelling, changed) in CASES.items():
        make(name, kind, spelling, changed)
        print(name, sum(f.stat().st_size for f in (OUT / name).iterdir()))
