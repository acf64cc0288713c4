"""Layers, as `mlx.nn` has them."""

from nanocupy.nn.activations import gelu_approx, silu, softplus
from nanocupy.nn.layers import (
    Embedding,
    Linear,
    QuantizedEmbedding,
    QuantizedLinear,
    RMSNorm,
    RoPE,
)
from nanocupy.nn.module import Module
from nanocupy.nn.prepare import prepare
from nanocupy.nn.quantize import quantize

__all__ = [
    "Embedding",
    "Linear",
    "Module",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "RMSNorm",
    "RoPE",
    "gelu_approx",
    "prepare",
    "quantize",
    "silu",
    "softplus",
]
