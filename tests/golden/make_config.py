"""What transformers makes of configurations that say things twice: writes config_twice.json.

Run with transformers 5.24 (no torch is needed): python tests/golden/make_config.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

BASE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
KINDS = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "smollm3", "olmo2"),
    *("granite", "qwen3_moe", "mixtral"),
)
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHORT, LONG = [1.0] * 8, [1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
ROPES: tuple[Any, ...] = (
    None,
    {},
    {"rope_type": "default"},
    {"rope_type": "default", "rope_theta": 1e6},
    {"type": "linear", "factor": 4.0},
    {"rope_type": "linear", "type": "linear", "factor": 2.0, "rope_theta": 5e5},
    {"rope_type": "linear", "type": "dynamic", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", **YARN},
    {"type": "yarn", "factor": 4.0},
    {"rope_type": "yarn", **YARN, "beta_fast": 16, "attention_factor": 1.25},
    {"rope_type": "llama3", **LLAMA3},
    {"rope_type": "llama3", **LLAMA3, "rope_theta": 5e5},
    {"type": "longrope", "short_factor": SHORT, "long_factor": LONG},
    {"type": "su", "short_factor": SHORT, "long_factor": LONG},
)
PAIRS: dict[str, tuple[Any, ...]] = {
    "rope_parameters": ROPES,
    "rope_scaling": ROPES,
    "rope_theta": (10000.0, 1e6, None),
    "original_max_position_embeddings": (64, 128),
    "partial_rotary_factor": (0.5, 1.0),
    "head_dim": (16, 32, None),
    "num_key_value_heads": (1, 2, None),
    "sliding_window": (24, None, 32),
    "use_sliding_window": (True, False),
    "max_window_layers": (0, 2, 4),
    "layer_types": (
        ["full_attention"] * 4,
        ["sliding_attention"] * 4,
        ["sliding_attention", "full_attention"] * 2,
        None,
    ),
    "sliding_window_pattern": (2, 3),
    "tie_word_embeddings": (True, False),
    "attention_bias": (True, False),
    "rms_norm_eps": (1e-5, 1e-6),
    "rope_local_base_freq": (10000.0, 20000.0),
    "num_experts": (4, 8),
    "num_local_experts": (4, 8),
    "no_rope_layers": ([1, 1, 1, 0], [1, 0, 1, 0], None),
    "no_rope_layer_interval": (2, 4),
    "dtype": ("float16", "bfloat16"),
    "torch_dtype": ("float32", "bfloat16"),
}


COMMON = (
    *("rope_parameters", "rope_scaling", "rope_theta", "original_max_position_embeddings"),
    *("head_dim", "num_key_value_heads", "tie_word_embeddings", "rms_norm_eps"),
    *("dtype", "torch_dtype"),
)
_WINDOWS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
_GEMMA = ("sliding_window", "layer_types", "sliding_window_pattern", "attention_bias")
OWN: dict[str, tuple[str, ...]] = {
    "llama": ("attention_bias", "layer_types", "partial_rotary_factor"),
    "mistral": ("sliding_window", "layer_types"),
    "qwen2": _WINDOWS,
    "qwen3": (*_WINDOWS, "attention_bias"),
    "gemma2": _GEMMA,
    "gemma3_text": (*_GEMMA, "rope_local_base_freq"),
    "phi3": ("partial_rotary_factor", "sliding_window"),
    "smollm3": ("no_rope_layers", "no_rope_layer_interval", *_WINDOWS),
    "qwen3_moe": ("num_experts", "num_local_experts", "use_sliding_window", "sliding_window"),
    "mixtral": ("num_local_experts", "sliding_window"),
}


def draw(rng: random.Random) -> dict[str, Any]:
    """A configuration with a few fields that may be at odds."""
    kind = rng.choice(KINDS)
    own = OWN.get(kind, ())
    names = {*rng.sample(COMMON, 2), *rng.sample(own, min(len(own), rng.randint(0, 3)))}
    if rng.random() < 0.3:
        names |= {"rope_parameters", "rope_scaling"}
    experts = {"num_local_experts": 4} if kind in ("qwen3_moe", "mixtral") else {}
    return {"model_type": kind, **experts, **{n: rng.choice(PAIRS[n]) for n in sorted(names)}}


def answer(raw: dict[str, Any]) -> dict[str, Any] | None:
    """What counts of it; None where transformers refuses it."""
    from transformers import CONFIG_MAPPING

    fields = {name: value for name, value in raw.items() if name != "model_type"}
    try:
        config = CONFIG_MAPPING[raw["model_type"]](**{**BASE, **json.loads(json.dumps(fields))})
        config.standardize_rope_params()
    except Exception:
        return None
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None) or 0
    everywhere = raw["model_type"] in ("mistral", "mixtral", "phi3", "qwen3_moe")
    windows = [
        window if everywhere or kind == "sliding_attention" else 0 for kind in kinds or [0] * 4
    ]
    return {
        "head_dim": getattr(config, "head_dim", None) or 64 // 4,
        "num_key_value_heads": config.num_key_value_heads,
        "windows": windows,
        "tie_word_embeddings": config.tie_word_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "dtype": config.dtype and str(config.dtype).removeprefix("torch."),
        "rope": config.rope_parameters,
        "turning": getattr(config, "no_rope_layers", None),
        "experts": getattr(config, "num_experts", None) or getattr(config, "num_local_experts", 0),
    }


def main() -> None:
    rng = random.Random(5)
    cases, seen = [], set()
    while len(cases) < 320:
        raw = draw(rng)
        if (text := json.dumps(raw, sort_keys=True)) not in seen:
            seen.add(text)
            cases.append({"config": raw, "want": answer(raw)})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    Path(__file__).with_name("config_twice.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
