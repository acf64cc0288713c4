from __future__ import annotations

import json
import math
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


def test_what_any_file_calls_an_end_is_one(tmp_path: Path) -> None:
    tokenizer = {
        "eos_token": {"content": "<end>"},
        "bos_token": "<s>",
        "added_tokens_decoder": {"7": {"content": "<end>"}, "3": {"content": "<s>"}},
    }
    silent = changed(eos_token_id=None, bos_token_id="absent")
    config = load_config(folder(tmp_path, silent, tokenizer_config=tokenizer))
    assert config.eos_token_ids == (7,) and config.bos_token_id == 3
    folder(tmp_path, changed(eos_token_id=5))
    assert load_config(tmp_path).eos_token_ids == (5, 7)
    folder(tmp_path, changed(), generation_config={"eos_token_id": [9, 4, 9]})
    assert load_config(tmp_path).eos_token_ids == (9, 4, 128001, 128008, 128009, 7)


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
        ({"rope_scaling": {"rope_type": "mrope", "factor": 4.0}}, "'mrope' is not supported"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2, "shift": 3}},
            r"\['shift'\] of type 'linear'",
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "truncate": "no"}},
            "truncate must be true",
        ),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "short_factor must be 32"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"rope_scaling": "linear"}, "must be an object"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "per layer type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        (
            {"final_logit_softcapping": 30.0},
            "final_logit_softcapping 30.0: not supported for .*llama",
        ),
        ({"sliding_window": 512, "num_experts": 8}, "sliding_window 512, num_experts 8: not supp"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention True: not supported"),
        ({"layer_types": ["full_attention"]}, "layer_types must be 16 times"),
        ({"layer_types": [["full_attention"]] * 16}, "layer_types must be 16 times"),
        ({"layer_types": ["sliding_attention"] * 16}, "layer_types .* with windows of"),
        ({"eos_token_id": 128256}, "below vocab_size 128256, got 128256"),
        ({"eos_token_id": [[1]]}, "eos_token_id must be a token"),
        ({"quantization_config": {"quant_method": "hqq"}}, "method 'hqq' is not supported"),
        ({"quantization": {"bits": 3, "group_size": 64}}, "bits 3 in groups of 64"),
        ({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, "mode 'mxfp4'"),
        ({"quantization": {"bits": 4, "group_size": 32, "x": {"bits": 2}}}, "of 'x' .* bits 2"),
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


# ---- other architectures


def of(path: Path, model_type: str, **fields: Any) -> Any:
    """A configuration of eight layers; "absent" takes a field away."""
    sizes = {"num_hidden_layers": 8, "hidden_act": "absent", "rms_norm_eps": "absent"}
    return load_config(folder(path, changed(model_type=model_type, **{**PLAIN, **sizes, **fields})))


PLAIN = {"rope_theta": "absent", "rope_scaling": "absent"}
ON = {"use_sliding_window": True, "sliding_window": 64}


@pytest.mark.parametrize(
    ("model_type", "fields", "windows"),
    [
        ("mistral", {}, (4096,) * 8),
        ("mistral", {"sliding_window": None}, ()),
        ("mistral", {"sliding_window": 64}, (64,) * 8),
        ("phi3", {"head_dim": "absent", "sliding_window": 2047}, (2047,) * 8),
        ("phi3", {}, ()),
        ("qwen2", {"sliding_window": 64, "max_window_layers": 2}, ()),
        ("qwen2", {**ON, "max_window_layers": 6}, (0,) * 6 + (64,) * 2),
        ("qwen3", {**ON, "layer_types": ["full_attention", "sliding_attention"] * 4}, (0, 64) * 4),
        ("gemma2", {}, (4096, 0) * 4),
        ("gemma3_text", {"sliding_window": 512}, (512,) * 5 + (0,) + (512,) * 2),
        ("gemma3_text", {"sliding_window": 9, "sliding_window_pattern": 2}, (9, 0) * 4),
        ("smollm3", {"use_sliding_window": False, "sliding_window": None}, ()),
        ("smollm3", ON, (0, 0, 0, 64) * 2),
        ("olmo2", {"sliding_window": None}, ()),
    ],
)
def test_windows(tmp_path: Path, model_type: str, fields: Any, windows: tuple[int, ...]) -> None:
    assert of(tmp_path, model_type, **fields).windows == windows


@pytest.mark.parametrize(
    ("model_type", "fields", "message"),
    [
        ("qwen2", {**ON, "max_window_layers": "all"}, "max_window_layers must be a number"),
        ("smollm3", {"no_rope_layers": [1, [0]] * 4}, "no_rope_layers must be 8 times 0 or 1"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0: not supp"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 1e4}}, r"\['rope_theta'\] beside those"),
        ("mixtral", {}, "num_local_experts is missing"),
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 5}, "must be at most"),
        ("qwen3_moe", {"num_experts": 8, "mlp_only_layers": 1}, "must be numbers of layers"),
        ("qwen2", {"mlp_bias": True}, "mlp_bias True: not supported for model_type 'qwen2'"),
    ],
)
def test_what_is_wrong_with_others_is_named(
    tmp_path: Path, model_type: str, fields: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        of(tmp_path, model_type, **fields)


def test_silence_means_what_it_means_in_transformers(tmp_path: Path) -> None:
    gemma = of(tmp_path, "gemma2", num_key_value_heads="absent")
    assert (gemma.head_dim, gemma.num_key_value_heads, gemma.tie_word_embeddings) == (256, 4, True)
    assert (gemma.attention_softcap, gemma.logits_softcap) == (50.0, 30.0)
    assert (gemma.attention_scale, gemma.hidden_act) == (1 / 16, "gelu_pytorch_tanh")
    uncapped = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    gemma = of(tmp_path, "gemma2", **uncapped)
    assert (gemma.attention_softcap, gemma.logits_softcap) == (0.0, 0.0)
    smol = of(tmp_path, "smollm3")
    assert smol.rope.theta == 2e6 and smol.tie_word_embeddings
    assert smol.rope_layers == (True, True, True, False) * 2
    assert of(tmp_path, "qwen3").head_dim == 128
    assert of(tmp_path, "olmo2").rms_norm_eps == of(tmp_path, "phi3").rms_norm_eps == 1e-5


def test_gemma3_turns_in_two_ways_in_either_spelling(tmp_path: Path) -> None:
    old = {"rope_theta": 5e5, "rope_local_base_freq": 2e4}
    old |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    kinds = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    for fields in (old, {"rope_parameters": kinds}):
        config = of(tmp_path, "gemma3_text", **fields)
        assert (config.rope.theta, config.rope.type, config.rope.factor) == (5e5, "linear", 8.0)
        assert (config.local_rope.theta, config.local_rope.type) == (2e4, "default")
    silent = of(tmp_path, "gemma3_text")
    assert (silent.rope.theta, silent.local_rope.theta) == (1e6, 1e4)


def test_gemma3_inside_a_model_that_sees(tmp_path: Path) -> None:
    """As on the hub: what is said is little."""
    inner = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240}
    inner |= {"num_hidden_layers": 34, "sliding_window": 1024}
    inner |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    outer = {"model_type": "gemma3", "eos_token_id": [1, 106], "torch_dtype": "bfloat16"}
    outer |= {"text_config": inner, "vision_config": {}, "mm_tokens_per_image": 256}
    config = load_config(folder(tmp_path, outer))
    assert (config.vocab_size, config.num_attention_heads, config.head_dim) == (262208, 8, 256)
    assert config.windows[:6] == (1024,) * 5 + (0,) and config.eos_token_ids == (1, 106)


def test_yarn(tmp_path: Path) -> None:
    said = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = of(tmp_path, "qwen2", max_position_embeddings=32768, rope_scaling=said)
    assert config.rope.magnitude == pytest.approx(0.1 * math.log(4) + 1)
    assert config.max_position_embeddings == 131072
    scales = {"mscale": 0.7, "mscale_all_dim": 1.4}
    config = of(tmp_path, "qwen2", rope_scaling={**said, **scales})
    assert config.rope.magnitude == pytest.approx(
        (0.07 * math.log(4) + 1) / (0.14 * math.log(4) + 1)
    )
    assert of(tmp_path, "qwen2", rope_scaling={**said, "attention_factor": 2}).rope.magnitude == 2


@pytest.mark.parametrize("name", ["longrope", "su", "yarn"])
def test_phi3_turns_by_two_lists(tmp_path: Path, name: str) -> None:
    factors = {"short_factor": [1.0] * 24, "long_factor": [2.0] * 24}
    config = of(
        tmp_path,
        "phi3",
        partial_rotary_factor=0.75,
        original_max_position_embeddings=4096,
        rope_scaling={"type": name, **factors},
    )
    assert (config.rope.type, config.rope.partial) == ("longrope", 0.75)
    assert config.rope.short == (1.0,) * 24 and config.rope.long == (2.0,) * 24
    assert config.rope.magnitude == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))


def test_fields_that_are_off_or_say_nothing_of_the_maths_are_let_be(tmp_path: Path) -> None:
    harmless = {
        "rope_interleaved": False,
        "clip_qkv": None,
        "full_attn_mod": 1,
        "norm_after": False,
    }
    harmless |= {"initializer_range": 0.02, "_name_or_path": "x", "attention_dropout": 0.1}
    assert load_config(folder(tmp_path, changed(**harmless))).model_type == "llama"
