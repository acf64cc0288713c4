from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanocupy.checkpoint import load_config, load_generation_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
}
SCALING = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
V4 = {
    "torch_dtype": "bfloat16",
    "rope_theta": 500000.0,
    "rope_scaling": {**SCALING, "rope_type": "llama3"},
}
V5 = {
    "dtype": "bfloat16",
    "rope_parameters": {**SCALING, "rope_theta": 500000.0, "rope_type": "llama3"},
}
OLD = {
    "torch_dtype": "bfloat16",
    "rope_theta": 500000.0,
    "rope_scaling": {**SCALING, "type": "llama3"},
}


def folder(path: Path, config: dict[str, Any], **others: dict[str, Any]) -> Path:
    for name, value in {"config": config, **others}.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def changed(**fields: Any) -> dict[str, Any]:
    return {k: v for k, v in {**LLAMA, **V4, **fields}.items() if v != "absent"}


@pytest.mark.parametrize("spelling", [V4, V5, OLD])
def test_spellings_mean_the_same(tmp_path: Path, spelling: dict[str, Any]) -> None:
    config = load_config(folder(tmp_path, {**LLAMA, **spelling}))
    assert config.rope.theta == 500000.0 and config.rope.type == "llama3"
    assert (config.rope.factor, config.rope.high_freq_factor) == (32.0, 4.0)
    assert config.rope.original_max_position_embeddings == 8192
    assert (config.dtype, config.head_dim, config.num_key_value_heads) == ("bfloat16", 64, 8)
    assert config.eos_token_ids == (128001, 128008, 128009) and config.bos_token_id == 128000


def test_a_language_model_inside_another(tmp_path: Path) -> None:
    inner = {**LLAMA, **V4}
    inner.pop("torch_dtype")
    outer = {"model_type": "llava", "torch_dtype": "float16", "text_config": inner}
    config = load_config(folder(tmp_path, outer))
    assert (config.model_type, config.dtype) == ("llama", "float16")
    assert config.raw["model_type"] == "llava"


def test_silence(tmp_path: Path) -> None:
    gone = dict.fromkeys(
        (
            "rope_theta",
            "rope_scaling",
            "torch_dtype",
            "eos_token_id",
            "bos_token_id",
            "rms_norm_eps",
        ),
        "absent",
    )
    config = load_config(folder(tmp_path, changed(**gone, num_key_value_heads=None)))
    assert (config.rope.theta, config.rope.type) == (10000.0, "default")
    assert not config.tie_word_embeddings and not config.attention_bias and not config.mlp_bias
    assert config.num_key_value_heads == 32 and config.dtype == "float32"
    assert config.eos_token_ids == () and config.bos_token_id is None
    assert config.quantization is None and config.rms_norm_eps == 1e-6


def test_head_dim_of_its_own(tmp_path: Path) -> None:
    assert load_config(folder(tmp_path, changed(head_dim=128))).head_dim == 128


def test_eos_comes_from_the_first_file_that_says_so(tmp_path: Path) -> None:
    tokenizer = {
        "eos_token": {"content": "<end>"},
        "bos_token": "<s>",
        "added_tokens_decoder": {"7": {"content": "<end>"}, "3": {"content": "<s>"}},
    }
    silent = changed(eos_token_id=None, bos_token_id="absent")
    config = load_config(folder(tmp_path, silent, tokenizer_config=tokenizer))
    assert config.eos_token_ids == (7,) and config.bos_token_id == 3
    folder(tmp_path, changed(eos_token_id=5))
    assert load_config(tmp_path).eos_token_ids == (5,)
    folder(tmp_path, changed(), generation_config={"eos_token_id": [9, 4, 9]})
    assert load_config(tmp_path).eos_token_ids == (9, 4)


def test_quantization_is_mlx(tmp_path: Path) -> None:
    said = {
        "group_size": 64,
        "bits": 4,
        "model.embed_tokens": {"group_size": 32, "bits": 8},
        "lm_head": False,
    }
    config = load_config(folder(tmp_path, changed(quantization=said, quantization_config=said)))
    assert config.quantization is not None
    assert config.quantization.for_module("model.layers.0.mlp.up_proj") == (4, 64)
    assert config.quantization.for_module("model.embed_tokens") == (8, 32)
    assert config.quantization.for_module("lm_head") is None
    config = load_config(
        folder(tmp_path, changed(quantization_config={"bits": 8, "group_size": 32}))
    )
    assert config.quantization is not None and config.quantization.bits == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported; supported: llama"),
        ({"model_type": ["llama"]}, "is not supported; supported: llama"),
        ({"model_type": "absent"}, "model_type None"),
        ({"hidden_size": "absent"}, "hidden_size is missing"),
        ({"hidden_size": 0}, "hidden_size must be a positive integer, got 0"),
        ({"hidden_size": True}, "hidden_size must be a positive integer, got True"),
        ({"vocab_size": 1e3}, "vocab_size must be a positive integer"),
        ({"num_key_value_heads": 5}, "must be a multiple of num_key_value_heads 5"),
        ({"head_dim": 63}, "head_dim 63 even"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number above 0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
        ({"torch_dtype": "float8"}, "dtype 'float8' is not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"rope_scaling": "linear"}, "must be an object"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "per layer type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"eos_token_id": 128256}, "below vocab_size 128256, got 128256"),
        ({"eos_token_id": [[1]]}, "eos_token_id must be a token"),
        ({"quantization_config": {"quant_method": "gptq"}}, "method 'gptq' is not supported"),
        ({"quantization": {"bits": 3, "group_size": 64}}, "bits 3 in groups of 64"),
        ({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, "mode 'mxfp4'"),
        ({"quantization": {"bits": 4, "group_size": 32, "x": {"bits": 2}}}, "bits 2"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(folder(tmp_path, changed(**fields)))


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 100_000, '{"a":' + "9" * 5000 + "}"])
def test_broken_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json"):
        load_config(tmp_path)


def test_a_missing_file_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json does not exist"):
        load_config(tmp_path)


def test_generation_config_is_what_the_file_says(tmp_path: Path) -> None:
    assert load_generation_config(tmp_path) == {}
    said = {
        "temperature": 0.6,
        "top_k": None,
        "_from_model_config": True,
        "transformers_version": "5",
    }
    folder(tmp_path, LLAMA, generation_config=said)
    assert load_generation_config(tmp_path) == {"temperature": 0.6}


def test_nothing_in_a_folder_is_run(tmp_path: Path) -> None:
    (tmp_path / "modeling_trap.py").write_text("raise SystemExit('a model file was run')")
    auto = {"AutoConfig": "modeling_trap.Config", "AutoModelForCausalLM": "modeling_trap.Model"}
    config = load_config(folder(tmp_path, changed(auto_map=auto, model_file="modeling_trap.py")))
    assert config.model_type == "llama"
