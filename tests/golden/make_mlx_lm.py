"""Make tests/golden/mlx_lm/*: tiny random models that mlx-lm quantised and wrote itself.

    pip install 'mlx[cpu]' mlx-lm
    python tests/golden/make_mlx_lm.py

A case is a folder as `mlx_lm.convert -q` writes it, with mlx-lm's own choice of bits for each
layer, and golden.npz: tokens and mlx-lm's logits of them, computed in float32.
"""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

OUT = Path(__file__).parent / "mlx_lm"
BASE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTURE = {"num_experts_per_tok": 2, "norm_topk_prob": True}
QWEN = {"num_experts": 4, "moe_intermediate_size": 64, "decoder_sparse_step": 1}
CASES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {**MIXTURE, **QWEN, "mlp_only_layers": []},  # routers have 8 bits
    "mixtral": {"num_experts_per_tok": 2, "num_local_experts": 4, "sliding_window": None},
    "granite": {  # some layers have 8 bits
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.4,
        "logits_scaling": 2.5,
        "attention_bias": False,
        "mlp_bias": False,
    },
}


def make(kind: str, changed: dict[str, Any]) -> None:
    config = {"model_type": kind, **BASE, **changed}
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    model = module.Model(module.ModelArgs.from_dict(config))
    mx.random.seed(0)
    model.update(
        tree_map(
            lambda x: (mx.random.normal(x.shape) * 0.2 + (x.ndim == 1)).astype(mx.bfloat16),
            model.parameters(),
        )
    )
    model, config = quantize_model(model, config, 64, 4, quant_predicate=None)
    folder = OUT / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    ids = np.random.default_rng(1).integers(4, BASE["vocab_size"], 20).astype(np.int32)
    logits = np.array(model(mx.array(ids[None])))[0]
    np.savez_compressed(folder / "golden.npz", ids=ids, logits=logits)
    said = json.loads((folder / "config.json").read_text())["quantization"]
    mixed = {name: form for name, form in said.items() if isinstance(form, dict)}
    print(kind, len(tree_flatten(model.parameters())), "tensors;", len(mixed), "of their own form")


if __name__ == "__main__":
    for kind, changed in CASES.items():
        make(kind, changed)
