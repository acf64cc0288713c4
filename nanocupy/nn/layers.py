"""The layers a language model is made of, as `mlx.nn` has them.

A layer starts with zeros in place of weights and gets them from `load_weights`. `prepare` then
packs linear weights for a device; from there on the layer records operations on the packed weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy import core
from nanocupy.core import array
from nanocupy.core.recorder.arrays import shared, uniform
from nanocupy.core.recorder.fused import rms_norm
from nanocupy.core.recorder.packed import packed_embedding, packed_linear
from nanocupy.core.recorder.rotary import rope
from nanocupy.dtypes import uint32
from nanocupy.kernels.linear import PackedWeight, dequantize
from nanocupy.nn.module import Module


class Weighted(Module):
    """A layer around one weight [n, k], which `prepare` packs for a device."""

    weight: array
    packed: PackedWeight | None = None

    def dense(self) -> array:
        """The weight as f32 [n, k]."""
        return self.weight.astype(core.float32)

    def buffer_key(self) -> tuple[Any, ...]:
        """A key that is equal for layers that may be packed into one buffer. Computes no weight."""
        return str(self.weight.dtype), self.weight.shape[1]

    def to_pack(self) -> Any:
        """The weight as `kernels.linear.pack` takes it; computed now if it was not yet."""
        return self.weight.numpy()

    def to_quantized(
        self, group_size: int | None = None, bits: int | None = None, mode: str = "affine"
    ) -> Any:
        """A quantised layer with this one's weight; its codes are computed when they are needed."""
        made = self.empty_quantized(group_size or 64, bits or 4)
        made.weight, made.scales, made.biases = core.quantize(self.weight, group_size, bits, mode)
        return made.update({"bias": self.bias} if "bias" in self else {})

    def dims(self) -> tuple[int, int]:
        """(n, k), packed or not."""
        if self.packed is not None:
            return self.packed.n, self.packed.k
        n, k = self.weight.shape
        return n, k


class Affine(Weighted):
    """A weight of affine codes in groups along its inputs: w = code*scale + bias.

    weight uint32 [n, k*bits/32] (first code in the lowest bits), scales, biases [n, k/group_size].
    """

    def _add_codes(
        self, group_size: int | None = None, bits: int | None = None, mode: str = "affine"
    ) -> None:
        """Replace the weight by empty codes, scales and biases; default: 4 bits, groups of 64."""
        if mode != "affine":
            raise NotImplementedError(f"[quantize] mode={str(mode)[:40]!r}: only 'affine'")
        group_size, bits = group_size or 64, bits or 4
        n, k = self.weight.shape
        if k % group_size:
            raise ValueError(f"[quantize] {k} inputs do not divide into groups of {group_size}")
        self.group_size, self.bits = group_size, bits
        self.weight = uniform((n, k * bits // 32), 0, uint32)
        self.scales, self.biases = (uniform((n, k // group_size), 0) for _ in range(2))

    def dense(self) -> array:
        return shared(dequantize(*self.to_pack()))

    def buffer_key(self) -> tuple[Any, ...]:
        dtypes = str(self.scales.dtype), str(self.biases.dtype)
        return (self.bits, self.group_size, *dtypes, self.weight.shape[1])

    def to_pack(self) -> Any:
        return self.weight.numpy(), self.scales.numpy(), self.biases.numpy(), self.bits

    def dims(self) -> tuple[int, int]:
        n, words = super().dims()
        return (n, words) if self.packed is not None else (n, words * 32 // self.bits)


def _from_layer(layer: Weighted, /, *form: Any, **named: Any) -> Any:
    """`layer.to_quantized(...)`, by its MLX name."""
    return layer.to_quantized(*form, **named)


class Linear(Weighted):
    """y = x W^T (+ b), weight [output_dims, input_dims]."""

    def __init__(self, input_dims: int, output_dims: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = uniform((output_dims, input_dims), 0)
        if bias:
            self.bias = uniform((output_dims,), 0)

    def __call__(self, x: array) -> array:
        if self.packed is not None:
            return packed_linear(x, self.packed, self.get("bias"))
        y = x @ self.dense().T
        return y + self.bias if "bias" in self else y

    def _extra_repr(self) -> str:
        n, k = self.dims()
        return f"input_dims={k}, output_dims={n}, bias={'bias' in self}"

    def empty_quantized(self, group_size: int, bits: int) -> QuantizedLinear:
        n, k = self.dims()
        return QuantizedLinear(k, n, "bias" in self, group_size, bits)


class QuantizedLinear(Affine, Linear):
    """A Linear with an `Affine` weight: `form` is group_size, bits, mode."""

    def __init__(
        self, input_dims: int, output_dims: int, bias: bool = True, *form: Any, **named: Any
    ) -> None:
        super().__init__(input_dims, output_dims, bias)
        self._add_codes(*form, **named)

    from_linear = staticmethod(_from_layer)


class Embedding(Weighted):
    """weight[tokens], weight [num_embeddings, dims]."""

    def __init__(self, num_embeddings: int, dims: int) -> None:
        super().__init__()
        self.weight = uniform((num_embeddings, dims), 0)

    def __call__(self, tokens: array) -> array:
        if self.packed is not None:
            return packed_embedding(tokens, self.packed)
        return core.take(self.dense(), tokens, axis=0)

    def as_linear(self, x: array) -> array:
        """Logits [..., num_embeddings] of x, with the embedding as the output layer's weight."""
        if self.packed is not None:
            return packed_linear(x, self.packed)
        return x @ self.dense().T

    def _extra_repr(self) -> str:
        return "{}, {}".format(*self.dims())

    def empty_quantized(self, group_size: int, bits: int) -> QuantizedEmbedding:
        n, k = self.dims()
        return QuantizedEmbedding(n, k, group_size, bits)


class QuantizedEmbedding(Affine, Embedding):
    """An Embedding with an `Affine` weight: `form` is group_size, bits, mode."""

    def __init__(self, num_embeddings: int, dims: int, *form: Any, **named: Any) -> None:
        super().__init__(num_embeddings, dims)
        self._add_codes(*form, **named)

    from_embedding = staticmethod(_from_layer)


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def __init__(self, dims: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = uniform((dims,), 1)
        self.eps = eps

    def __call__(self, x: array) -> array:
        return rms_norm(x, self.weight, self.eps)

    def _extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RoPE(Module):
    """Rotary positions on [B, heads, L, head_dim]; `offset` may be an array, one position a row.

    Args:
        dims: how many dimensions of each head are rotated.
        traditional: rotate neighbours instead of halves.
        freqs: instead of `base`: what positions are divided by, per pair of dimensions.
        magnitude: (not in MLX) multiplies what turns.
    """

    def __init__(
        self,
        dims: int,
        traditional: bool = False,
        base: float | None = 10000.0,
        scale: float = 1.0,
        freqs: np.ndarray | None = None,
        magnitude: float = 1.0,
    ) -> None:
        super().__init__()
        self.dims, self.traditional, self.base, self.scale = dims, traditional, base, scale
        self.magnitude = magnitude
        self._freqs = None if freqs is None else array(freqs, core.float64)

    def __call__(self, x: array, offset: Any = 0) -> array:
        return rope(
            x,
            self.dims,
            traditional=self.traditional,
            base=None if self._freqs is not None else self.base,
            scale=self.scale,
            offset=offset,
            freqs=self._freqs,
            magnitude=self.magnitude,
        )
