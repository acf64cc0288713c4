"""The layers a language model is made of, as `mlx.nn` has them.

A layer starts with zeros in place of weights and gets them from `load_weights`. `prepare` then
packs linear weights for a device; from there on the layer records operations on the packed weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy import core
from nanocupy.core import array, fast
from nanocupy.nn.module import Module


class Linear(Module):
    """y = x W^T (+ b), weight [output_dims, input_dims]."""

    packed: fast.PackedWeight | None = None

    def __init__(self, input_dims: int, output_dims: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = core.zeros((output_dims, input_dims))
        if bias:
            self.bias = core.zeros((output_dims,))

    def __call__(self, x: array) -> array:
        if self.packed is not None:
            return fast.packed_linear(x, self.packed, self.get("bias"))
        y = x @ self.dense().T
        return y + self.bias if "bias" in self else y

    def dense(self) -> array:
        """The weight as f32 [output_dims, input_dims]."""
        return self.weight.astype(core.float32)

    def to_pack(self) -> tuple[Any, Any]:
        """(what may share a buffer, what `kernels.linear.pack` takes)."""
        weight = self.weight.numpy()
        return (weight.dtype.str, weight.shape[1]), weight

    def _extra_repr(self) -> str:
        shape = (self.packed.n, self.packed.k) if self.packed else self.weight.shape
        return f"input_dims={shape[1]}, output_dims={shape[0]}, bias={'bias' in self}"

    def to_quantized(self, group_size: int, bits: int) -> QuantizedLinear:
        n, k = self.weight.shape
        return QuantizedLinear(k, n, "bias" in self, group_size, bits)


class QuantizedLinear(Linear):
    """A Linear whose weight is affine codes in groups along its inputs: w = code*scale + bias.

    weight uint32 [n, k*bits/32] (first code in the lowest bits), scales and biases [n,
    k/group_size].
    """

    def __init__(
        self,
        input_dims: int,
        output_dims: int,
        bias: bool = True,
        group_size: int = 64,
        bits: int = 4,
    ) -> None:
        super().__init__(input_dims, output_dims, bias)
        self.group_size, self.bits = group_size, bits
        _quantized(self, output_dims, input_dims)

    def dense(self) -> array:
        return _dense(self)

    def to_pack(self) -> tuple[Any, Any]:
        return _to_pack(self)


class Embedding(Module):
    """weight[tokens], weight [num_embeddings, dims]."""

    packed: fast.PackedWeight | None = None

    def __init__(self, num_embeddings: int, dims: int) -> None:
        super().__init__()
        self.weight = core.zeros((num_embeddings, dims))

    def __call__(self, tokens: array) -> array:
        if self.packed is not None:
            return fast.packed_embedding(tokens, self.packed)
        return core.take(self.dense(), tokens, axis=0)

    def as_linear(self, x: array) -> array:
        """The embedding as the output layer that is tied to it."""
        if self.packed is not None:
            return fast.packed_linear(x, self.packed)
        return x @ self.dense().T

    def dense(self) -> array:
        return self.weight.astype(core.float32)

    def to_pack(self) -> tuple[Any, Any]:
        weight = self.weight.numpy()
        return (weight.dtype.str, weight.shape[1]), weight

    def _extra_repr(self) -> str:
        shape = (self.packed.n, self.packed.k) if self.packed else self.weight.shape
        return f"{shape[0]}, {shape[1]}"

    def to_quantized(self, group_size: int, bits: int) -> QuantizedEmbedding:
        n, k = self.weight.shape
        return QuantizedEmbedding(n, k, group_size, bits)


class QuantizedEmbedding(Embedding):
    """An Embedding with the quantised weight of `QuantizedLinear`."""

    def __init__(self, num_embeddings: int, dims: int, group_size: int = 64, bits: int = 4) -> None:
        super().__init__(num_embeddings, dims)
        self.group_size, self.bits = group_size, bits
        _quantized(self, num_embeddings, dims)

    def dense(self) -> array:
        return _dense(self)

    def to_pack(self) -> tuple[Any, Any]:
        return _to_pack(self)


def _quantized(layer: Module, n: int, k: int) -> None:
    """Replace the weight's place by places for codes, scales and biases."""
    if k % layer.group_size:
        raise ValueError(f"[quantize] {k} inputs do not divide into groups of {layer.group_size}")
    layer.weight = core.zeros((n, k * layer.bits // 32), core.uint32)
    layer.scales = core.zeros((n, k // layer.group_size))
    layer.biases = core.zeros((n, k // layer.group_size))


def _dense(layer: Module) -> array:
    codes, scales, biases = (layer[name].numpy() for name in ("weight", "scales", "biases"))
    return array(fast.dequantize(codes, scales, biases, layer.bits))


def _to_pack(layer: Module) -> tuple[Any, Any]:
    codes, scales, biases = (layer[name].numpy() for name in ("weight", "scales", "biases"))
    inputs = codes.shape[1] * 32 // layer.bits
    key = (layer.bits, layer.group_size, scales.dtype.str, biases.dtype.str, inputs)
    return key, (codes, scales, biases, layer.bits)


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def __init__(self, dims: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = core.ones((dims,))
        self.eps = eps

    def __call__(self, x: array) -> array:
        return fast.rms_norm(x, self.weight, self.eps)

    def _extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RoPE(Module):
    """Rotary positions on [B, heads, L, head_dim]; `offset` may be an array, one position a row.

    Args:
        dims: how many dimensions of each head are rotated.
        traditional: rotate neighbours instead of halves.
        freqs: instead of `base`: what positions are divided by, per pair of dimensions.
    """

    def __init__(
        self,
        dims: int,
        traditional: bool = False,
        base: float | None = 10000.0,
        scale: float = 1.0,
        freqs: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.dims, self.traditional, self.base, self.scale = dims, traditional, base, scale
        self._freqs = None if freqs is None else array(freqs)

    def __call__(self, x: array, offset: Any = 0) -> array:
        return fast.rope(
            x,
            self.dims,
            traditional=self.traditional,
            base=None if self._freqs is not None else self.base,
            scale=self.scale,
            offset=offset,
            freqs=self._freqs,
        )


def silu(x: array) -> array:
    """x * sigmoid(x)."""
    return core.silu(x)


def softplus(x: array) -> array:
    """log(1 + exp(x))."""
    return core.logaddexp(x, 0)
