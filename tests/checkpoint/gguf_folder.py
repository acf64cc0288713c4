"""A Hugging Face folder as a GGUF file, the way llama.cpp's converter writes one.

Names of tensors come from the gguf library's own table, so that they are not ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes  # noqa: F401  (tells NumPy about bfloat16)
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from checkpoint import tiny

ARCH = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "granite": "granite",
}
PERMUTED = ("llama", "smollm3", "granite")
Weights = dict[str, NDArray[np.float32]]


def to_gguf(folder: Path, path: Path, kind: str = "F32") -> None:
    """Write the model in `folder` to `path`, its matrices as `kind` where their rows divide."""
    config = json.loads((folder / "config.json").read_text())
    arch = ARCH[config["model_type"]]
    weights = {n: w.astype(np.float32) for n, w in load_file(folder / "model.safetensors").items()}
    writer = gguf.GGUFWriter(path, arch)
    _metadata(writer, arch, config)
    _tokenizer(writer, config["vocab_size"])
    for name, array in _tensors(arch, config, weights).items():
        block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
        plain = array.ndim == 1 or array.shape[-1] % block or "ffn_gate_inp" in name
        of = gguf.GGMLQuantizationType["F32" if plain else kind]
        rows = array.reshape(-1, array.shape[-1])
        raw = gguf.quants.quantize(rows, of).reshape(*array.shape[:-1], -1)
        writer.add_tensor(name, raw, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _metadata(writer: gguf.GGUFWriter, arch: str, config: dict[str, Any]) -> None:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim") or hidden // heads
    rope = {**config, **(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if head_dim != hidden // heads or arch.startswith("gemma"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(int(head_dim * (rope.get("partial_rotary_factor") or 1)))
    if rope.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    if experts := config.get("num_local_experts") or config.get("num_experts"):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if arch == "qwen3moe":
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if arch.startswith("gemma"):
        writer.add_sliding_window(config["sliding_window"])
        if cap := config.get("attn_logit_softcapping"):
            writer.add_attn_logit_softcapping(cap)
        if cap := config.get("final_logit_softcapping"):
            writer.add_final_logit_softcapping(cap)
    if arch == "gemma3":
        writer.add_sliding_window_pattern([t != "full_attention" for t in config["layer_types"]])
    if arch == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
        writer.add_sliding_window(config["sliding_window"] or 0)
        if "long_factor" in rope:
            scale = config["max_position_embeddings"] / config["original_max_position_embeddings"]
            grown = np.sqrt(1 + np.log(scale) / np.log(config["original_max_position_embeddings"]))
            writer.add_rope_scaling_attn_factors(float(grown))
    if arch == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])


def _tensors(arch: str, config: dict[str, Any], weights: Weights) -> Weights:
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, layers)
    found: Weights = {}
    stacks: dict[str, dict[int, NDArray[np.float32]]] = {}
    for name, array in weights.items():
        if ".experts." in name:
            where, _, rest = name.partition(".experts.")
            expert, _, leaf = rest.partition(".")
            stacks.setdefault(f"{where}.experts.{leaf}", {})[int(expert)] = array
            continue
        kv = config["num_key_value_heads"]
        if arch in PERMUTED and ".q_proj." in name:
            array = permute(array, heads)
        if arch in PERMUTED and ".k_proj." in name:
            array = permute(array, kv)
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            array = array + np.float32(1)
        found[names.get_name(name, try_suffixes=(".weight", ".bias"))] = array
    for name, experts in stacks.items():
        stacked = np.stack([experts[i] for i in range(len(experts))])
        found[names.get_name(name, try_suffixes=(".weight",))] = stacked
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "long_factor" in rope:
        found["rope_factors_long.weight"] = np.array(rope["long_factor"], np.float32)
        found["rope_factors_short.weight"] = np.array(rope["short_factor"], np.float32)
    if rope.get("rope_type") == "llama3":
        theta = config.get("rope_theta") or rope["rope_theta"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        found["rope_freqs.weight"] = llama3_factors(theta, head_dim, rope)
    return found


def permute(w: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """llama.cpp's conversion of q and k."""
    halves = w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:])
    return halves.swapaxes(1, 2).reshape(w.shape)


def llama3_factors(theta: float, head_dim: int, rope: dict[str, Any]) -> NDArray[np.float32]:
    """As llama.cpp's converter computes them, one by one."""
    original = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * theta ** (i / head_dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def _tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    """Bytes, as many as fit, and a pair of them."""
    letters = tiny.byte_letters()
    tokens = ["<|a|>", "<|b|>", "<|c|>", letters[0] + letters[1], *letters][:vocab_size]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 257][:vocab_size])
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
