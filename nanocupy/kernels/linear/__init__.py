"""Linear layers on packed weights: y[m, n] = sum over k of x[m, k] * w[n, k] (+ bias[n]).

Weights are floats, or affine codes of 4 or 8 bits: w = code*scale + bias, in groups of G along K;
scales and biases are f16, bf16 or f32. They are packed once, at load, as a device's kernels read
them: `cpu.py` and `cuda.py` say how they lie, and in which order sums are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray
from nanocupy.dtypes import FLOATS
from nanocupy.kernels import launches_of
from nanocupy.kernels.linear import affine
from nanocupy.kernels.quantize import LARGEST, Codes

RawWeight = np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray, int]
"""Floats [N, K], or (codes uint32 [N, K*bits/32], scales, biases [N, K/G], bits): MLX's layout."""


@dataclass(frozen=True)
class Format:
    """How a weight is stored: floats, or affine codes with `bits`, `group` and a scale kind."""

    kind: str  # of the weights, or of the scales when bits > 0
    bits: int = 0
    group: int = 0
    symmetric: bool = False  # biases follow from the scales and are not stored


@dataclass(frozen=True)
class PackedWeight:
    """A weight [n, k] in its packed layout on a device. An opaque handle to everything but kernels.

    Several weights that share k and format may lie in one buffer; `start` is the first output.
    `activations` says what it meets: "f32", "f16", "bf16", or "i16" or "i8" for rows that
    `quantize` made (affine formats).
    """

    format: Format
    n: int
    k: int
    data: DeviceArray
    start: int = 0
    activations: str = "f32"

    @property
    def codes(self) -> Codes | None:
        """How activations are quantised for this weight; None: they are floats."""
        if self.activations not in LARGEST:
            return None
        zero = 1 << (self.format.bits - 1) if self.format.symmetric else 0
        return Codes(self.activations, self.format.group, zero)

    def follows(self, other: PackedWeight) -> bool:
        """Whether this weight's outputs come right after the other's in the same buffer."""
        same = self.data is other.data and self.activations == other.activations
        return same and other.start + other.n == self.start

    def joined(self, other: PackedWeight) -> PackedWeight:
        """This weight and the one that follows it, as one."""
        assert other.follows(self)
        return replace(self, n=self.n + other.n)


def pack(
    device: Device, weights: Sequence[RawWeight], activations: str = "f32"
) -> list[PackedWeight]:
    """Pack weights that share inputs and format into one buffer, side by side.

    Args:
        activations: what the weights meet: see `cpu.pack` and `cuda.pack`.
    """
    packed: list[PackedWeight] = launches_of(device.kind).linear.pack(device, weights, activations)
    return packed


def format_of(weight: RawWeight) -> tuple[Format, int]:
    """The format of a weight as `pack` takes it, and its inputs. ValueError if it is unknown."""
    if not isinstance(weight, tuple):
        if weight.dtype not in FLOATS:
            raise ValueError(
                f"[linear] weight of dtype {weight.dtype}: expected float32, float16 or bfloat16"
            )
        return Format(FLOATS[weight.dtype]), weight.shape[1]
    codes, scales, biases, bits = weight
    size = codes.shape[1] * 32 // bits
    group = size // scales.shape[1]
    groups = (16, 32, 64, 128) if bits == 8 else (32, 64, 128)
    if bits not in (4, 8) or group not in groups or group * scales.shape[1] != size:
        raise ValueError(
            f"[linear] {bits} bits in groups of {size / scales.shape[1]:g}: expected 4 or 8 bits "
            "in groups of 32, 64 or 128, or 8 bits in groups of 16"
        )
    kind = FLOATS[scales.dtype] if scales.dtype == biases.dtype else "f32"
    return Format(kind, bits, group), size


def dequantize(codes: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int) -> np.ndarray:
    """The affine weight as f32 [N, K]: code*scale + bias, rounded once."""
    q = affine.unpack(codes, bits).astype(np.float64)
    s, b = (
        np.repeat(t.astype(np.float64), q.shape[1] // t.shape[1], axis=1) for t in (scales, biases)
    )
    return (q * s + b).astype(np.float32)


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """x f32 [rows, K], weight as f32 [N, K] -> f32 [rows, N], summed in f64."""
    y = x.astype(np.float64) @ weight.astype(np.float64).T
    return (y if bias is None else y + bias).astype(np.float32)
