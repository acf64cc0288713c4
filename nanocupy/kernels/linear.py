"""Linear layers on packed weights: y[m, n] = sum over k of x[m, k] * w[n, k] (+ bias[n]).

**Layout.** Weights are packed once, at load, into *panels* of 16 outputs, so that a SIMD lane is an
output and no sum crosses lanes; four panels (a *group* of 64 outputs) lie interleaved, so that one
row of activations reads memory as one sequential stream. N is padded to 64.

    f32, f16   [N/64][K][4 panels][16] bf16       [N/64][K/2][4 panels][16][2] affine
    [N/64][K/G] of { codes [lines][4 panels][16][4 bytes], scales [4][16], biases [4][16] }

w = code*scale + bias, in groups of G along K. With 8 bits a byte is a code; with 4 bits, byte c of
line j holds code 4j+c (low) and code G/2+4j+c (high). Scales and biases are f16, bf16 or f32.

**Arithmetic.** One accumulator an output, K ascending, every step one fma. Affine weights meet
either f32 activations ("f32": w is rounded to f32 as stored) or integers of 16 or 8 bits with a
scale a group of G ("i16", "i8"; `kernels.quantize`): the sum inside a group is an exact integer,
then acc += bias*sum, acc += scale*dot. Eight bits halve the work where bytes have an instruction,
and change one answer in twenty-five of a small model (SmolLM2-135M: 95.7 % of its most likely
tokens stay, mean KL 0.007; with 16 bits 99.9 %, below 0.00001). Weights in bf16 meet f32, or bf16
where the CPU multiplies pairs of them ("bf16"), which halves the work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nanocupy.device.base import Device, Launch, Rows
from nanocupy.kernels.base import FLOATS, CpuKernel
from nanocupy.kernels.quantize import Codes

GROUP = 64  # outputs that lie interleaved
_KINDS = {"f32": 0, "f16": 1, "bf16": 2}


@dataclass(frozen=True)
class Format:
    """How a weight is stored: floats, or affine codes with `bits`, `group` and a scale kind."""

    kind: str  # of the weights, or of the scales when bits > 0
    bits: int = 0
    group: int = 0

    @property
    def block(self) -> int:
        """Bytes of 64 outputs x one group along K (affine formats)."""
        return GROUP * self.group * self.bits // 8 + 2 * GROUP * (4 if self.kind == "f32" else 2)

    def group_bytes(self, size: int) -> int:
        """Bytes of 64 outputs with `size` inputs."""
        if self.bits:
            return size // self.group * self.block
        return GROUP * size * (4 if self.kind == "f32" else 2)

    def kernel(self, activations: str) -> CpuKernel:
        if not self.bits:
            return CpuKernel(f"linear:dense_{self.kind}_{activations}")
        return CpuKernel(f"linear:q{self.bits}_g{self.group}_{self.kind}_{activations}")


@dataclass(frozen=True)
class PackedWeight:
    """A weight [n, k] in its packed layout on a device. An opaque handle to everything but kernels.

    Several weights that share k and format may lie in one buffer; `start` is the first output.
    `activations` says what it meets: "f32", "bf16" (bf16 weights), or "i16" or "i8" for rows that
    `quantize` made (affine formats).
    """

    format: Format
    n: int
    k: int
    data: Any
    start: int = 0
    activations: str = "f32"

    @property
    def nbytes(self) -> int:
        return -(-self.n // GROUP) * self.format.group_bytes(self.k)

    @property
    def codes(self) -> Codes | None:
        """How activations are quantised for this weight; None: they are floats."""
        return Codes(self.activations, self.format.group) if self.activations[0] == "i" else None

    @property
    def view(self) -> Any:
        """The buffer from this weight's first group on, flat."""
        return self.data[self.start // GROUP :].reshape(-1)

    def follows(self, other: PackedWeight) -> bool:
        """Whether this weight's outputs come right after the other's in the same buffer."""
        same = self.data is other.data and self.activations == other.activations
        return same and other.n % GROUP == 0 and other.start + other.n == self.start

    def joined(self, other: PackedWeight) -> PackedWeight:
        """This weight and the one that follows it, as one."""
        assert other.follows(self)
        return replace(self, n=self.n + other.n)


# ---- packing


def pack(device: Device, weights: list[Any], activations: str = "f32") -> list[PackedWeight]:
    """Pack weights that share inputs and format into one buffer, side by side.

    Args:
        activations: on the CPU "f32", or what affine weights meet: "i16", or "i8" (where that is
            no faster, 16 bits are taken); with either, bf16 weights meet bf16 where that is faster,
            other floats f32. On CUDA, what all weights meet: "f32", "f16" or "bf16".
        weights: each a float array [N, K] (f32, f16, bf16), or (codes uint32 [N, K*bits/32],
            scales, biases [N, K/G], bits) in MLX's affine layout.
    """
    if device.kind == "cuda":
        from nanocupy.kernels import row_major

        return row_major.pack(device, weights, activations)
    parts = [_affine_blocks(*w) if isinstance(w, tuple) else _dense_blocks(w) for w in weights]
    form, size = parts[0][0], parts[0][2]
    assert all(p[0] == form and p[2] == size for p in parts)
    total = sum(len(blocks) for *_, blocks in parts)
    data = device.asarray(np.empty((total, form.group_bytes(size)), np.uint8))
    packed, row = [], 0
    for _, n, _, blocks in parts:
        data[row : row + len(blocks)] = blocks
        meets = _met(form, activations)
        packed.append(PackedWeight(form, n, size, data, row * GROUP, meets))
        row += len(blocks)
    return packed


def _met(form: Format, activations: str) -> str:
    """What weights of a format meet on this CPU."""
    from nanocupy.device.cpu import target

    if activations == "f32":
        return "f32"
    if not form.bits:
        return "bf16" if form.kind == "bf16" and target.dots_bf16() else "f32"
    return "i16" if activations == "i8" and not target.dots_bytes(form.bits) else activations


def _padded(array: np.ndarray) -> np.ndarray:
    missing = -array.shape[0] % GROUP
    return np.pad(array, ((0, missing), (0, 0))) if missing else array


def _dense_blocks(weight: np.ndarray) -> tuple[Format, int, int, np.ndarray]:
    kind = FLOATS.get(weight.dtype)
    if kind is None:
        raise ValueError(
            f"[linear] weight of dtype {weight.dtype}: expected float32, float16 or bfloat16"
        )
    n, size = weight.shape
    per = 2 if kind == "bf16" else 1
    if size % per:
        raise ValueError(f"[linear] bf16 weight with {size} inputs: the number must be even")
    bits = _padded(weight).view(np.uint32 if kind == "f32" else np.uint16)
    blocks = bits.reshape(-1, 4, 16, size // per, per).transpose(0, 3, 1, 2, 4)
    return Format(kind), n, size, _bytes(blocks)


def affine_format(codes: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int) -> Format:
    """The format of an affine weight as `pack` takes it. Raises ValueError if it is unknown."""
    size = codes.shape[1] * 32 // bits
    group = size // scales.shape[1]
    if bits not in (4, 8) or group not in (32, 64, 128) or group * scales.shape[1] != size:
        raise ValueError(
            f"[linear] {bits} bits in groups of {size / scales.shape[1]:g}: expected 4 or 8 bits "
            "in groups of 32, 64 or 128"
        )
    kind = FLOATS[scales.dtype] if scales.dtype == biases.dtype else "f32"
    return Format(kind, bits, group)


def _affine_blocks(
    codes: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int
) -> tuple[Format, int, int, np.ndarray]:
    form = affine_format(codes, scales, biases, bits)
    n, size, group, kind = codes.shape[0], codes.shape[1] * 32 // bits, form.group, form.kind
    lines = group * bits // 32
    out = np.empty((-(-n // GROUP), size // group, form.block), np.uint8)
    quads = _quads(_padded(codes), bits, group).reshape(-1, 4, 16, size // group, lines)
    codes_end = GROUP * 4 * lines
    out[..., :codes_end].view(np.uint32).reshape(-1, size // group, lines, 4, 16)[...] = (
        quads.transpose(0, 3, 4, 1, 2)
    )
    width = (form.block - codes_end) // 2
    for index, part in enumerate((scales, biases)):
        values = _padded(part.astype(np.float32) if kind == "f32" else part)
        raw = values.view(np.uint32 if kind == "f32" else np.uint16)
        raw = raw.reshape(-1, GROUP, size // group).transpose(0, 2, 1)
        start = codes_end + index * width
        out[..., start : start + width].view(raw.dtype)[...] = raw
    return form, n, size, out.reshape(len(out), -1)


def _quads(codes: np.ndarray, bits: int, group: int) -> np.ndarray:
    """Codes [N, K*bits/32] uint32 -> the same words in the packed order of a group."""
    if bits == 8:
        return codes
    pairs = codes.view(np.uint8).reshape(codes.shape[0], -1, 2, group // 4)
    low, high = pairs[:, :, 0], pairs[:, :, 1]  # codes of the first and of the second half
    out = np.empty((*low.shape[:2], group // 2), np.uint8)
    out[..., 0::2] = (low & 15) | (high << 4)
    out[..., 1::2] = (low >> 4) | (high & 0xF0)
    return out.reshape(codes.shape[0], -1).view(np.uint32)


def _bytes(blocks: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(blocks).view(np.uint8).reshape(len(blocks), -1)


# ---- references


def unpack(codes: np.ndarray, bits: int) -> np.ndarray:
    """MLX's uint32 words [N, K*bits/32] -> codes uint8 [N, K]."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    words = codes[:, :, None] >> shifts & ((1 << bits) - 1)
    return words.astype(np.uint8).reshape(codes.shape[0], -1)


def dequantize(codes: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int) -> np.ndarray:
    """The affine weight as f32 [N, K]: code*scale + bias, rounded once."""
    q = unpack(codes, bits).astype(np.float64)
    s, b = (
        np.repeat(t.astype(np.float64), q.shape[1] // t.shape[1], axis=1) for t in (scales, biases)
    )
    return (q * s + b).astype(np.float32)


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """x f32 [rows, K], weight as f32 [N, K] -> f32 [rows, N], summed in f64."""
    y = x.astype(np.float64) @ weight.astype(np.float64).T
    return (y if bias is None else y + bias).astype(np.float32)


# ---- launches


def launch(
    device: Any,
    weight: PackedWeight,
    x: Any,
    out: Any,
    rows: Rows,
    *,
    x_stride: int,
    out_stride: int,
    bias: Any = None,
) -> list[Launch]:
    """out [rows, n] f32 = x . weight (+ bias). Strides in bytes.

    Args:
        x: rows of k activations, as `weight.activations` says.
        bias: f32 [n padded to 32], or None.
    """
    if device.kind == "cuda":
        from nanocupy.kernels import row_major

        strides = x_stride // x.dtype.itemsize, out_stride // 4
        return row_major.launch(
            device, weight, x, out, rows, x_stride=strides[0], out_stride=strides[1], bias=bias
        )
    scratch: Any = 0
    if weight.n % 32:
        scratch = device.empty((device.threads, 96 * 32), np.float32)
    args = (weight.view, x, out, rows.count, weight.k, weight.n, x_stride, out_stride)
    tail = (0 if bias is None else bias, scratch, 96 * 128)
    return [Launch(weight.format.kernel(weight.activations), (*args, *tail))]
