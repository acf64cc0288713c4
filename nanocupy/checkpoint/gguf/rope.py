"""Rope scaling of a GGUF file, as config.json's rope_scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanocupy.checkpoint.gguf.architectures import Keys
from nanocupy.checkpoint.rope_config import RopeConfig, llama3_freqs, plain_freqs
from nanocupy.quoting import quoted

Json = dict[str, Any]


def rope_fields(keys: Keys) -> Json:
    """rope_theta, rope_scaling, and for Phi-3 partial_rotary_factor."""
    dims = keys.count("rope.dimension_count", keys.head_dim)
    found: Json = {"rope_theta": keys.number("rope.freq_base", 10000.0)}
    if dims != keys.head_dim:
        if keys.arch != "phi3":
            raise ValueError(
                f"{keys.gguf.path}: heads of {keys.head_dim} with {dims} rotated dimensions are "
                f"not supported for '{keys.arch}'"
            )
        found["partial_rotary_factor"] = dims / keys.head_dim
    long, short = (keys.tensor(f"rope_factors_{name}.weight") for name in ("long", "short"))
    original = keys.count("rope.scaling.original_context_length", 0)
    scaling = _scaling(keys, original)
    factors = keys.tensor("rope_freqs.weight")
    if scaling and (factors is not None or keys.arch == "phi3"):
        raise ValueError(
            f"{keys.gguf.path}: rope scaling '{scaling['rope_type']}' beside factors by frequency "
            "is not supported"
        )
    if long is not None and short is not None:
        return found | _two_lengths(keys, original, short, long)
    if keys.text("rope.scaling.type", "") == "longrope":
        raise ValueError(f"{keys.gguf.path}: rope scaling 'longrope' without its factors")
    if factors is not None:
        scaling = _llama3(found["rope_theta"], keys.head_dim, factors) or _by_factor(keys, factors)
    return {**found, "rope_scaling": scaling}


def _scaling(keys: Keys, original: int) -> Json | None:
    older = keys.number("rope.scale_linear", 1.0)
    factor = keys.number("rope.scaling.factor", older)
    if keys.has("rope.scale_linear") and factor != older:
        raise ValueError(
            f"{keys.gguf.path}: rope.scaling.factor {factor:g}, and rope.scale_linear {older:g}"
        )
    said = keys.text("rope.scaling.type", "linear" if factor != 1 else "none")
    magnitude = keys.number("rope.scaling.attn_factor", 1.0)
    if said == "longrope" or (keys.arch == "phi3" and said == "none"):
        return None  # the tensors have it
    if said == "linear" and magnitude == 1:
        return {"rope_type": "linear", "factor": factor}
    if said == "yarn" and original and magnitude == 1:
        betas = {n: keys.number(f"rope.scaling.yarn_{n}", 0.0) for n in ("beta_fast", "beta_slow")}
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            **{name: value for name, value in betas.items() if value},
        }
    if said != "none" or magnitude != 1:
        raise ValueError(
            f"{keys.gguf.path}: rope scaling {quoted(said)} with attn_factor {magnitude:g} is not "
            f"supported; 'none', 'linear', 'yarn' and factors by frequency are"
        )
    return None


def _two_lengths(
    keys: Keys, original: int, short: NDArray[np.float32], long: NDArray[np.float32]
) -> Json:
    """Phi-3's longrope: factors for sequences up to the original length and for longer ones."""
    if not original:
        raise ValueError(f"{keys.gguf.path}: no original_context_length beside rope_factors")
    scaling = {
        "rope_type": "longrope",
        "short_factor": _numbers(short),
        "long_factor": _numbers(long),
        "attention_factor": keys.number("rope.scaling.attn_factor", 1.0),
    }
    return {"rope_scaling": scaling, "original_max_position_embeddings": original}


def _by_factor(keys: Keys, factors: NDArray[np.float32]) -> Json:
    """Any factors, as a longrope that is the same for all lengths."""
    return {
        "rope_type": "longrope",
        "short_factor": _numbers(factors),
        "long_factor": _numbers(factors),
        "attention_factor": 1.0,
        "factor": 1.0,
        "original_max_position_embeddings": keys.count("context_length"),
    }


def _numbers(factors: NDArray[np.float32]) -> list[float]:
    return [float(str(x)) for x in factors]


def _llama3(theta: float, head_dim: int, given: NDArray[np.float32]) -> Json | None:
    """Llama 3's rule for 8192 original tokens, if it gives these factors."""
    rule: Json = {
        "rope_type": "llama3",
        "factor": float(given.max()) if given.size else 1.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    rope = RopeConfig(theta, "llama3", rule["factor"], 1.0, 4.0, 8192)
    expected = llama3_freqs(head_dim, rope) / plain_freqs(head_dim, rope)
    same = given.shape == expected.shape and np.allclose(given, expected, rtol=1e-4)
    return rule if same else None
