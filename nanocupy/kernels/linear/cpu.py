"""Linear layers on a CPU: how weights are packed, and the launch.

**Layout.** Weights lie in *panels* of 16 outputs, so that a SIMD lane is an output and no sum
crosses lanes; four panels (a *group* of 64 outputs) lie interleaved, so that one row of activations
reads memory as one sequential stream. N is padded to 64.

    f32, f16   [N/64][K][4 panels][16]         bf16   [N/64][K/2][4 panels][16][2]
    affine   [N/64][K/G] of { codes [lines][4 panels][16][4 bytes], scales [4][16], biases [4][16] }

With 8 bits a byte is a code; with 4 bits, byte c of line j holds code 4j+c (low) and code G/2+4j+c
(high). Where every bias is -2^(bits-1) * scale (GGUF's Q4_0 and Q8_0), none is stored.

**Arithmetic.** One accumulator an output, K ascending, every step one fma. Affine weights meet
either f32 activations ("f32": w is rounded to f32 as stored) or integers of 16 or 8 bits with a
scale a group of G ("i16", "i8"; `kernels.quantize`): the sum inside a group is an exact integer,
then acc += bias*sum, acc += scale*dot; where no biases are stored, the sum is of code - 2^(bits-1).
Eight bits halve the work where bytes have an instruction, and change one answer in twenty-five of a
small model (SmolLM2-135M: 95.7 % of its most likely tokens stay, mean KL 0.007; with 16 bits
99.9 %, below 0.00001). Weights in bf16 meet f32, or bf16 where the CPU multiplies pairs of them
("bf16"), which halves the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nanocupy.device.cpu import target
from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import DTYPES
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.linear import Format, PackedWeight, RawWeight, format_of

if TYPE_CHECKING:
    from nanocupy.device.cpu.device import CpuDevice

GROUP = 64  # outputs that lie interleaved
ROW_BLOCK = 96  # rows whose activations stay in L2 while the weights pass by
CHUNK = 1 << 17  # bytes of a weight that are packed at a time


class LinearArgs(NamedTuple):
    """Arguments of a kernel; strides in bytes."""

    weight: DeviceArray
    x: DeviceArray
    out: DeviceArray  # f32
    rows: DeviceArray
    size: int  # inputs
    n: int  # outputs
    x_stride: int
    out_stride: int
    bias: DeviceArray | int  # f32, or 0
    scratch: DeviceArray | int  # where a thread computes outputs that are no whole pair of panels
    scratch_bytes: int  # of a thread


@dataclass(frozen=True)
class PanelWeight(PackedWeight):
    """A weight [n, k] in panels."""

    @property
    def group_bytes(self) -> int:
        """Bytes of 64 outputs."""
        return _group_bytes(self.format, self.k)

    @property
    def nbytes(self) -> int:
        return -(-self.n // GROUP) * self.group_bytes

    @property
    def view(self) -> DeviceArray:
        """The buffer from this weight's first group on, flat."""
        return self.data[self.start // GROUP :].reshape(-1)


def _block_bytes(form: Format) -> int:
    """Bytes of 64 outputs x one group along K (affine formats)."""
    numbers = (1 if form.symmetric else 2) * GROUP
    return GROUP * form.group * form.bits // 8 + numbers * DTYPES[form.kind].itemsize


def _group_bytes(form: Format, size: int) -> int:
    """Bytes of 64 outputs with `size` inputs."""
    if form.bits:
        return size // form.group * _block_bytes(form)
    return GROUP * size * DTYPES[form.kind].itemsize


def kernel(form: Format, activations: str) -> CpuKernel:
    """The kernel for weights of a format; its name is explained in `cpu_body.py`."""
    if not form.bits:
        return CpuKernel(f"linear:dense_{form.kind}_{activations}")
    letter = "s" if form.symmetric else "q"
    return CpuKernel(f"linear:{letter}{form.bits}_g{form.group}_{form.kind}_{activations}")


# ---- packing


def pack(
    device: CpuDevice, weights: Sequence[RawWeight], activations: str = "f32"
) -> list[PanelWeight]:
    """Pack weights that share inputs and format into one buffer, side by side.

    Args:
        activations: "f32", or what affine weights meet: "i16", or "i8" (where that is no faster, 16
            bits are taken); with either, bf16 weights meet bf16 where that is faster, other floats
            f32.
    """
    symmetric = all(map(_is_symmetric, weights))
    form, size = _format_of(weights[0], symmetric)
    assert all(_format_of(weight, symmetric) == (form, size) for weight in weights)
    outputs = [len(weight[0] if isinstance(weight, tuple) else weight) for weight in weights]
    groups = [-(-n // GROUP) for n in outputs]
    data = device.memory.persistent((sum(groups), _group_bytes(form, size)), np.uint8)
    meets = _met(form, activations)
    packed: list[PanelWeight] = []
    row = 0
    for weight, n, count in zip(weights, outputs, groups, strict=True):
        _fill(form, data[row : row + count], weight)
        packed.append(PanelWeight(form, n, size, data, row * GROUP, meets))
        row += count
    return packed


def _met(form: Format, activations: str) -> str:
    """What weights of a format meet on this CPU."""
    if activations == "f32":
        return "f32"
    if not form.bits:
        return "bf16" if form.kind == "bf16" and target.dots_bf16() else "f32"
    return "i16" if activations == "i8" and not target.dots_bytes(form.bits) else activations


def _format_of(weight: RawWeight, symmetric: bool) -> tuple[Format, int]:
    """`format_of` a weight, perhaps without its biases."""
    if symmetric:
        codes, scales, _, bits = weight
        form, size = format_of((codes, scales, scales, bits))
        return replace(form, symmetric=True), size
    form, size = format_of(weight)
    if form == Format("bf16") and size % 2:
        raise ValueError(f"[linear] bf16 weight with {size} inputs: the number must be even")
    return form, size


def _is_symmetric(weight: RawWeight) -> bool:
    """Whether a weight is affine, and its biases are what its scales make of half the codes."""
    if not isinstance(weight, tuple):
        return False
    _, scales, biases, bits = weight
    zero = np.float32(-(1 << (bits - 1)))
    return np.array_equal(scales.astype(np.float32) * zero, biases.astype(np.float32))


def _fill(form: Format, out: np.ndarray, weight: RawWeight) -> None:
    """Pack one weight into its part of a buffer, as much at a time as stays in a CPU's cache."""
    parts = weight[:3] if isinstance(weight, tuple) else (weight,)
    fill = _fill_affine if form.bits else _fill_dense
    step = max(1, CHUNK // out.shape[1])
    for start in range(0, len(out), step):
        rows = slice(start * GROUP, (start + step) * GROUP)
        fill(form, out[start : start + step], *(_padded(part[rows]) for part in parts))


def _padded(array: np.ndarray) -> np.ndarray:
    missing = -array.shape[0] % GROUP
    return np.pad(array, ((0, missing), (0, 0))) if missing else array


def _fill_dense(form: Format, out: np.ndarray, weight: np.ndarray) -> None:
    per = 2 if form.kind == "bf16" else 1
    bits = weight.view(np.uint32 if form.kind == "f32" else np.uint16)
    bits = bits.reshape(len(out), 4, 16, -1, per).transpose(0, 3, 1, 2, 4)
    out.view(bits.dtype).reshape(bits.shape)[...] = bits


def _fill_affine(
    form: Format, out: np.ndarray, codes: np.ndarray, scales: np.ndarray, biases: np.ndarray
) -> None:
    lines = form.group * form.bits // 32
    blocks = out.reshape(len(out), -1, _block_bytes(form))
    codes_end = GROUP * 4 * lines
    words = codes.reshape(len(out), GROUP, -1, lines).transpose(0, 2, 3, 1)
    packed = blocks[..., :codes_end].view(np.uint32).reshape(words.shape)
    if form.bits == 8:
        packed[...] = words
    else:
        _pair_halves(np.ascontiguousarray(words), packed)
    numbers = (scales,) if form.symmetric else (scales, biases)
    width = (_block_bytes(form) - codes_end) // len(numbers)
    for index, part in enumerate(numbers):
        values = part.astype(np.float32) if form.kind == "f32" else part
        raw = values.view(np.uint32 if form.kind == "f32" else np.uint16)
        start = codes_end + index * width
        place = blocks[..., start : start + width].view(raw.dtype)
        place[...] = raw.reshape(len(out), GROUP, -1).transpose(0, 2, 1)


def _pair_halves(words: np.ndarray, out: np.ndarray) -> None:
    """4-bit codes uint32 [..., lines, outputs] -> lines of bytes with codes c and G/2 + c."""
    half = words.shape[-2] // 2
    first, second = words[..., :half, :], words[..., half:, :]
    even = (first & 0x0F0F0F0F) | (second & 0x0F0F0F0F) << 4  # bytes of codes 0, 2, 4, 6
    odd = (first >> 4 & 0x0F0F0F0F) | (second & 0xF0F0F0F0)  # of codes 1, 3, 5, 7
    out[..., 0::2, :] = _spread(even & 0xFFFF) | _spread(odd & 0xFFFF) << 8
    out[..., 1::2, :] = _spread(even >> 16) | _spread(odd >> 16) << 8


def _spread(words: np.ndarray) -> np.ndarray:
    """The two low bytes of a word, a byte apart."""
    return (words | words << 8) & 0x00FF00FF


# ---- the launch


def launch(
    device: Device, weight: PanelWeight, x: DeviceArray, out: DeviceArray, rows: Rows, *,
    x_stride: int, out_stride: int, bias: DeviceArray | None = None,
) -> list[Launch]:  # fmt: skip
    """out [rows, n] f32 = x . weight (+ bias). Strides in bytes.

    Args:
        x: rows of k activations, as `weight.activations` says.
        bias: f32 [n padded to 32], or None.
    """
    scratch: DeviceArray | int = 0
    if weight.n % 32:
        scratch = device.empty((device.threads, ROW_BLOCK * 32), np.float32)
    sizes = (weight.k, weight.n, x_stride, out_stride)
    tail = (0 if bias is None else bias, scratch, ROW_BLOCK * 128)
    args = LinearArgs(weight.view, x, out, rows.count, *sizes, *tail)
    return [Launch(kernel(weight.format, weight.activations), args)]
