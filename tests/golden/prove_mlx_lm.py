"""Hold converted folders to mlx-lm: it loads each, and its logits are ours.

    python tests/golden/prove_mlx_lm.py make FOLDER     # where nanocupy is installed
    python tests/golden/prove_mlx_lm.py check FOLDER    # where mlx[cpu] and mlx-lm are

`make` draws a small random model of every architecture, converts it to 4 and to 8 bits, and keeps
the logits of the result; `check` compares those of mlx-lm. It is run by hand, for mlx-lm needs
transformers; `tests/checkpoint/test_quantise.py` holds the codes to MLX.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ARCHITECTURES = Path(__file__).parent / "architectures"
CASES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "smollm3", "olmo2", "granite",
    "qwen3_moe", "mixtral", "gemma3 inside",
)  # fmt: skip
INSIDE = " inside"  # a model that sees
# (a square: mlx-lm rounds its root, which Gemma multiplies with, to bfloat16)
SIZES = {"hidden_size": 256, "intermediate_size": 192, "head_dim": 32}
SIZES |= {"num_attention_heads": 8, "num_key_value_heads": 2}
TOKENS = [5, 9, 33, 7, 60, 41, 12, 12, 8, 50]


def config_of(case: str) -> dict[str, Any]:
    """A golden case's config.json, wider, and as transformers 4 spells it: mlx-lm reads that."""
    raw = json.loads((ARCHITECTURES / case / "config.json").read_text())
    raw = {**raw, **{k: v for k, v in SIZES.items() if k != "head_dim" or raw.get(k)}}
    if "moe_intermediate_size" in raw:
        raw["moe_intermediate_size"] = 64
    rope = raw.pop("rope_parameters", None)
    if rope:
        raw["rope_theta"] = rope["rope_theta"]
    if raw["model_type"] == "qwen3_moe":
        raw.setdefault("num_experts", raw.pop("num_local_experts", None))
    if not raw["model_type"].startswith("gemma"):  # windows are not what this is about
        raw = {**raw, "sliding_window": None, "layer_types": None}
    if raw["model_type"] == "gemma3_text":
        raw["sliding_window_pattern"] = 3  # as its layer_types, which mlx-lm does not read
    return {"rope_theta": 10000.0, **raw}


def draw(folder: Path, case: str) -> None:
    """A random bfloat16 model of a case, as transformers names its tensors."""
    import ml_dtypes

    from nanocupy import models
    from nanocupy.checkpoint import load_config
    from nanocupy.checkpoint.writer import Entry, write_safetensors
    from nanocupy.utils import tree_flatten

    folder.mkdir(parents=True)
    inner = config_of(case.removesuffix(INSIDE))
    outer = {"model_type": "gemma3", "text_config": inner, "vision_config": {}, "vocab_size": 64}
    config = outer if case.endswith(INSIDE) else inner
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    args, rng = load_config(folder), np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    for name, place in tree_flatten(models.model_class(args.model_type)(args).parameters()):
        spread = 0.3 if place.ndim == 1 else 0.15
        centre = 1.0 if "norm" in name and not args.model_type.startswith("gemma") else 0.0
        value = rng.standard_normal(place.shape) * spread + centre
        tensors[theirs(name, args.model_type, case)] = value.astype(ml_dtypes.bfloat16)
    entries = {n: Entry("BF16", t.shape, t.nbytes) for n, t in tensors.items()}
    write_safetensors(folder / "model.safetensors", entries, iter(tensors.items()), {})


def theirs(name: str, model_type: str, case: str) -> str:
    """What transformers calls a parameter."""
    if case.endswith(INSIDE):
        return name.replace("model.", "model.language_model.", 1)
    if model_type == "mixtral":
        for ours, other in (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")):
            name = name.replace(f".{ours}.", f".{other}.")
    return name


def make(root: Path) -> None:
    import nanocupy.core as mx
    from nanocupy import models
    from nanocupy.checkpoint import Checkpoint
    from nanocupy.models.quantize_checkpoint import convert

    for case in CASES:
        draw(root / case, case)
        for bits in (4, 8):
            out = root / f"{case}-{bits}"
            convert(root / case, out, bits=bits, shard_bytes=200_000, progress=False)
            with Checkpoint(out) as checkpoint:
                model = models.load(checkpoint)
                logits = model(mx.array(np.array([TOKENS], np.int32))).numpy()
            np.save(out / "logits.npy", logits)


def check(root: Path) -> None:
    import mlx.core as mx
    from mlx_lm.utils import load_model

    for case in CASES:
        for bits in (4, 8):
            folder = root / f"{case}-{bits}"
            model, _ = load_model(folder)
            model.set_dtype(mx.float32)
            got = np.array(model(mx.array([TOKENS])).astype(mx.float32))
            want = np.load(folder / "logits.npy")
            apart = np.abs(got - want).max() / np.abs(want).max()
            same = (got.argmax(-1) == want.argmax(-1)).all()
            print(f"{case:13} {bits} bits: {apart:.1e} of the largest logit apart, argmax {same}")
            assert apart < 2e-5 and same


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]))
