"""Linear layers on CUDA: weights lie as the checkpoint has them, row by row.

    floats   [N, K], of the dtype that activations have: cuBLAS multiplies them
    affine   codes uint32 [N, K*bits/32], scales and biases [N, K/G]: kernels of ours

**Arithmetic.** Sums are f32. An affine weight w = code*scale + bias meets f32, f16 or bf16
activations. `affine_gemv` takes it as it is; `affine_gemm` rounds it to the activations' dtype, as
tensor cores ask for.

**Which kernel.** An output is K weights of bits/8 + 2*(bytes of a scale)/G bytes each, read once
for all rows of a block: 0.56 bytes for 4 bits in groups of 64 with 16-bit scales. An
H100 reads 6e12 such weights a second, while its CUDA cores issue 2.9e13 instructions, five a
weight. `affine_gemv` takes 3.9, 5.6 and 8.9 of them for 1, 2 and 4 rows (counted in sm_80's code):
memory bounds one row, arithmetic four. `affine_gemm`, by way of shared memory and tensor cores,
takes about 9 for 16 rows. The engine launches by capacity: which kernel a row meets, and with it
every bit of the result, depends on the size of the step that holds it, and on nothing else there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES, DTYPES, uint32
from nanocupy.kernels import cuda_grid
from nanocupy.kernels.kernel import GEMM, CudaKernel
from nanocupy.kernels.linear import Format, PackedWeight, RawWeight, format_of

GEMV_ROWS = 4  # the most rows that CUDA cores multiply; more go to tensor cores
_BLOCK = 128  # threads, of both products
_GEMV_OUTPUTS = 16  # of a block
_GEMM_OUTPUTS = {16: 32, 32: 32, 64: 64}  # of a block, by its rows


@dataclass(frozen=True)
class RowMajorWeight(PackedWeight):
    """A weight [n, k] on a CUDA device, in rows `start` to `start + n` of a buffer.

    Args:
        data: floats [N, K], or codes uint32 [N, K*bits/32].
        scales, biases: [N, K/G], for affine formats.
        activations: what the weight meets: "f32", "f16" or "bf16".
    """

    scales: Any = None
    biases: Any = None

    @property
    def views(self) -> list[Any]:
        """This weight's rows: floats, or codes, scales and biases."""
        arrays = (self.data, self.scales, self.biases) if self.format.bits else (self.data,)
        return [array[self.start : self.start + self.n] for array in arrays]

    @property
    def nbytes(self) -> int:
        return sum(int(view.nbytes) for view in self.views)


# ---- packing


def pack(
    device: Device, weights: Sequence[RawWeight], activations: str = "f32"
) -> list[RowMajorWeight]:
    """Put weights that share inputs and format into one buffer, side by side.

    Args:
        activations: what all weights meet: "f32", "f16" or "bf16".
    """
    form, size = _format_of(weights[0], activations)
    assert all(_format_of(weight, activations) == (form, size) for weight in weights)
    values = DTYPES[form.kind]
    parts = [weight[:3] if form.bits else (weight,) for weight in weights]
    total = sum(len(arrays[0]) for arrays in parts)
    buffers = [
        device.empty((total, array.shape[1]), uint32 if i == 0 and form.bits else values)
        for i, array in enumerate(parts[0])
    ]
    packed: list[RowMajorWeight] = []
    start = 0
    for arrays in parts:
        n = len(arrays[0])
        for buffer, array in zip(buffers, arrays, strict=True):
            # An array that has the buffer's dtype goes straight from the file's pages.
            device.write(buffer[start : start + n], array.astype(buffer.dtype, copy=False))
        packed.append(RowMajorWeight(form, n, size, buffers[0], start, activations, *buffers[1:]))
        start += n
    return packed


def _format_of(weight: RawWeight, activations: str) -> tuple[Format, int]:
    """`format_of` a weight on the device: floats are rounded to what they meet."""
    form, size = format_of(weight)
    return form if form.bits else Format(activations), size


# ---- launches


def launch(
    device: Device, weight: RowMajorWeight, x: DeviceArray, out: DeviceArray, rows: Rows, *,
    x_stride: int, out_stride: int, bias: DeviceArray | None = None,
) -> list[Launch]:  # fmt: skip
    """out [rows, n] f32 = x . weight (+ bias). Strides in bytes.

    Args:
        x: [rows, k], of the dtype that `weight.activations` names; starts at 16 bytes.
        bias: f32 [n or more], or None.
    """
    assert x.dtype == DTYPES[weight.activations]
    x_stride, out_stride = x_stride // x.dtype.itemsize, out_stride // 4
    if weight.format.bits:
        launches = [_affine_product(weight, x, out, rows, x_stride, out_stride)]
    elif x_stride == weight.k:
        shape = int(rows), weight.n, weight.k
        launches = [Launch(GEMM, (out, x, *weight.views, *shape, out_stride, False))]
    else:
        raise NotImplementedError(
            f"[linear] rows of {weight.k} inputs that lie {x_stride} elements apart, on CUDA"
        )
    if bias is not None:
        launches.append(add_bias(out, bias, rows, weight.n, out_stride))
    return launches


def add_bias(out: DeviceArray, bias: DeviceArray, rows: Rows, n: int, out_stride: int) -> Launch:
    """out += bias f32 [n] on the first `rows` rows, which lie `out_stride` elements apart."""
    args = (out, bias, rows.count, np.int32(n), np.int64(out_stride))
    return cuda_grid.elementwise(CudaKernel("elementwise", "add_bias"), args, rows, n)


def _affine_product(
    weight: RowMajorWeight, x: DeviceArray, out: DeviceArray, rows: Rows, x_stride: int,
    out_stride: int,
) -> Launch:  # fmt: skip
    if x_stride * x.dtype.itemsize % 16:
        raise NotImplementedError(
            f"[linear] rows that lie {x_stride} elements of {x.dtype} apart: kernels read 16 bytes"
        )
    few = rows <= GEMV_ROWS or x.dtype == np.float32
    if few:
        together = min(GEMV_ROWS, _power_of_two(rows))
        name, outputs = "affine_gemv", _GEMV_OUTPUTS
    else:
        together = min(64, max(16, _power_of_two(rows)))
        name, outputs = "affine_gemm", _GEMM_OUTPUTS[together]
    form = weight.format
    types = f"{C_TYPES[x.dtype]}, {C_TYPES[weight.scales.dtype]}, {form.bits}, {together}"
    args = (
        *(out, x, *weight.views, rows.count),
        *map(np.int32, (weight.n, weight.k, form.group)),
        *map(np.int64, (x_stride, out_stride)),
    )
    grid = (-(-weight.n // outputs), -(-int(rows) // together), 1)
    return Launch(CudaKernel(name, f"{name}<{types}>"), args, grid, _BLOCK)


def _power_of_two(rows: int) -> int:
    """The least power of two that is not below."""
    return 1 << (int(rows) - 1).bit_length()
