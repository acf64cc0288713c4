"""A user's kernel on CUDA."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch
from nanocupy.dtypes import C_TYPES
from nanocupy.kernels.custom import Source, Specs
from nanocupy.kernels.kernel import WrittenKernel


def launch(
    device: Device, source: Source, arrays: Sequence[DeviceArray], specs: Specs,
    grid: tuple[int, int, int], block: int,
) -> Launch:  # fmt: skip
    """The kernel on its inputs and outputs, flat `arrays` of these specs."""
    sizes = (np.int64(math.prod(shape)) for shape, _ in specs)
    return Launch(kernel_of(source, specs), (*arrays, *sizes), grid, block)


def kernel_of(source: Source, specs: Specs) -> WrittenKernel:
    """The kernel for arrays of these dtypes. NotImplementedError: the user gave no source."""
    if source.cuda is None:
        raise NotImplementedError(f"[{source.name}] has no CUDA source: give cuda=")
    names = (*source.inputs, *source.outputs)
    const = ["const "] * len(source.inputs) + [""] * len(source.outputs)
    parameters = [
        f"{c}{C_TYPES[dtype]}* {name}"
        for c, (_, dtype), name in zip(const, specs, names, strict=True)
    ]
    parameters += [f"long long {name}_size" for name in names]
    text = (
        f"#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n{source.header}\n"
        f"__global__ void {source.name}({', '.join(parameters)}) {{\n{source.cuda}\n}}\n"
    )
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return WrittenKernel(f"{source.name}_{key}", source.name, text)
