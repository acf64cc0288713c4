"""The default model, fetched, imported and mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nanocupy.checkpoint import Checkpoint
from nanocupy.kernels import linear


def test_config(real_model: Path) -> None:
    config = Checkpoint(real_model).config
    shape = (config.hidden_size, config.intermediate_size, config.num_hidden_layers)
    assert shape == (576, 1536, 30)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (9, 3, 64)
    assert config.rope.theta == 100000.0 and config.max_position_embeddings == 8192
    assert config.tie_word_embeddings and config.eos_token_ids == (2, 0)
    assert config.quantization is not None
    assert config.quantization.for_module("model.embed_tokens") == (8, 32)
    assert config.quantization.for_module("model.layers.0.self_attn.q_proj") == (4, 32)


def test_every_tensor_is_there_and_finite(real_model: Path) -> None:
    checkpoint = Checkpoint(real_model)
    assert len(checkpoint.names()) == 3 * 211 + 61
    for name in checkpoint.names():
        array = checkpoint.read(name)
        assert array.dtype == np.uint32 or np.isfinite(array).all(), name
    parts = (
        checkpoint.read(f"model.embed_tokens.{leaf}") for leaf in ("weight", "scales", "biases")
    )
    embedding = linear.dequantize(*parts, 8)
    assert embedding.shape == (49152, 576) and 0.05 < embedding.std() < 0.5
