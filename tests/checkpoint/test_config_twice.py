"""Configurations that say things twice: what counts is what counts in transformers, or a refusal.

`golden/make_config.py` drew them, and asked transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from golden.make_config import BASE
from nanocupy.checkpoint import ModelConfig, RopeConfig
from nanocupy.checkpoint.config import parse_config

CASES = json.loads((Path(__file__).parent.parent / "golden" / "config_twice.json").read_text())
ORIGINAL = "original_max_position_embeddings"
KINDS = {"full_attention", "sliding_attention"}


def rope(want: dict[str, Any], ours: RopeConfig) -> dict[str, tuple[Any, Any]]:
    """Of each parameter that counts: (transformers', ours)."""
    kind = want.get("rope_type", "default")
    pairs = {"type": (kind, ours.type), "theta": (want["rope_theta"], ours.theta)}
    pairs["partial"] = (want.get("partial_rotary_factor", 1.0), ours.partial)
    if kind != "default":
        pairs["factor"] = (want.get("factor", ours.factor), ours.factor)
    if kind in ("llama3", "yarn", "longrope"):
        pairs["original"] = (want[ORIGINAL], ours.original_max_position_embeddings)
    if kind == "yarn":
        pairs["fast"] = (want.get("beta_fast") or 32, ours.beta_fast)
        pairs["magnitude"] = (want.get("attention_factor", ours.magnitude), ours.magnitude)
    if kind == "longrope":
        pairs["short"] = (want["short_factor"], [*ours.short])
        pairs["long"] = (want["long_factor"], [*ours.long])
    return pairs


def pairs(want: dict[str, Any], ours: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Of everything that counts: (transformers', ours)."""
    layers = ours.num_hidden_layers
    found: dict[str, tuple[Any, Any]] = {
        name: (want[name], getattr(ours, name))
        for name in ("head_dim", "num_key_value_heads", "tie_word_embeddings", "rms_norm_eps")
    }
    found["windows"] = (want["windows"], [ours.window(i) for i in range(layers)])
    if want["dtype"]:
        found["dtype"] = (want["dtype"], ours.dtype)
    if ours.model_type in ("qwen3_moe", "mixtral"):
        found["experts"] = (want["experts"], ours.num_experts)
    if ours.model_type == "smollm3":
        turning = [bool(on) for on in want["turning"]]
        found["turning"] = (turning, [*ours.rope_layers] or [True] * layers)
    if KINDS & {*want["rope"]}:
        found |= rope(want["rope"]["full_attention"], ours.rope)
        local = rope(want["rope"]["sliding_attention"], ours.local_rope or ours.rope)
        return found | {f"local {name}": pair for name, pair in local.items()}
    return found | rope(want["rope"], ours.rope)


def test_as_transformers_decides_or_refused() -> None:
    wrong, refused = [], 0
    for case in CASES:
        raw = {**BASE, **case["config"]}
        try:
            ours = parse_config(raw, Path("config.json"))
        except ValueError:
            refused += 1
            continue
        if case["want"] is None:  # of a null, say, that it does not take for silence
            continue
        apart = {n: pair for n, pair in pairs(case["want"], ours).items() if pair[0] != pair[1]}
        if apart:
            wrong.append((case["config"], apart))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(CASES) - refused > 100, "and not by refusing all of them"


ROPE = {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_parameters": {"rope_theta": 1e6}}, "only that says rope_theta 1000000.0"),
        (
            {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6}},
            "only that says rope_theta 1000000.0",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "only that says partial_rotary"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "per layer type"),
        ({"rope_parameters": [1]}, "rope_parameters must be an object"),
    ],
)
def test_what_would_be_lost_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_config({**BASE, **ROPE, **fields}, Path("config.json"))


MLX4 = {"bits": 4, "group_size": 64}
AWQ = {"quant_method": "awq", "bits": 4, "version": "gemm"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantization": MLX4, "quantization_config": AWQ}, "quantization and quantization_conf"),
        (
            {"quantization": MLX4, "quantization_config": {**MLX4, "bits": 8}},
            "quantization and quantization_config differ",
        ),
        ({"num_attention_heads": 3}, "hidden_size 64 is no multiple of num_attention_heads 3"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers must be .* at most 16,384, got 1000000"),
        (
            {"model_type": "qwen3_moe", "num_experts": 4, "num_local_experts": 8},
            "num_experts 4, and num_local_experts 8",
        ),
    ],
)
def test_what_disagrees_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_config({**BASE, "model_type": "llama", **fields}, Path("config.json"))


def test_what_is_said_twice_alike_is_fine() -> None:
    raw = {**BASE, "model_type": "llama", "quantization": MLX4, "quantization_config": MLX4}
    config = parse_config(raw, Path("config.json"))
    assert config.quantization is not None and config.quantization.bits == 4


def test_of_a_model_inside_another() -> None:
    """The outer dtype is that of all parts, and the end tokens of both are ends."""
    inner = {**BASE, "model_type": "llama", "dtype": "float32", "eos_token_id": 2}
    outer = {"model_type": "llava", "torch_dtype": "bfloat16", "eos_token_id": [7, 2]}
    config = parse_config({**outer, "text_config": inner}, Path("config.json"))
    assert (config.dtype, config.eos_token_ids) == ("bfloat16", (7, 2))
    outer["quantization"], inner["quantization"] = MLX4, {**MLX4, "bits": 8}
    with pytest.raises(ValueError, match="one thing in text_config and another beside it"):
        parse_config({**outer, "text_config": inner}, Path("config.json"))


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "x" * 10**6},
        {"layer_types": ["full_attention"] * 10**5},
        {"rope_scaling": {"rope_type": "y" * 10**6}},
        {"rope_scaling": {"rope_type": "linear", "factor": [1.0] * 10**6}},
        {"rope_scaling": {"k" * 10**6: 1}},
        {"hidden_size": 10**4000},
        {"quantization": {"quant_method": "z" * 10**6}},
        {"quantization": {"bits": [4] * 10**6, "group_size": 64}},
        {"eos_token_id": "e" * 10**6},
        {"dtype": ["float32"] * 10**6},
        {f"scale{i}": 2.0 for i in range(10**4)},
        {"my_scale": "s" * 10**6},
    ],
)
def test_errors_are_short(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        parse_config({**BASE, "model_type": "llama", **fields}, Path("config.json"))
    assert len(str(caught.value)) < 5000
