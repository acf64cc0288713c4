"""Kernels of a user's: a Numba function for the CPU, CUDA source for GPUs, as one operation."""

from __future__ import annotations

import ctypes
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array
from nanocupy.core.recorder.graph import Node, Op, Spec, item, size
from nanocupy.core.recorder.heap import empty
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.device.chain import KINDS
from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import chains
from nanocupy.kernels.kernel import WrittenKernel

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_CPU_KINDS = frozenset(KINDS.values()) - {"f16", "bf16"}


class CustomKernel:
    """What `custom_kernel` returns: see there."""

    def __init__(
        self,
        name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        cpu: Callable[..., None] | None,
        cuda: str | None,
        header: str,
    ) -> None:
        for word in (name, *input_names, *output_names):
            if not isinstance(word, str) or not _IDENTIFIER.fullmatch(word):
                raise ValueError(f"[custom_kernel] {word!r}: expected a name as C has them")
        names = [*input_names, *output_names]
        if len(set(names)) < len(names) or not output_names:
            raise ValueError(
                f"[custom_kernel] {name}: inputs {list(input_names)} and outputs "
                f"{list(output_names)}: expected names that differ, and an output"
            )
        if cpu is None and cuda is None:
            raise ValueError(f"[custom_kernel] {name}: give cpu=, a function, or cuda=, source")
        self.name, self.inputs, self.outputs = name, tuple(input_names), tuple(output_names)
        self.cpu, self.cuda, self.header = cpu, cuda, header
        self._made: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"CustomKernel({self.name})"

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[Any],
        grid: tuple[int, int, int] = (1, 1, 1),
        threadgroup: tuple[int, int, int] = (256, 1, 1),
    ) -> list[array]:
        """Record the operation; see `custom_kernel`."""
        arrays = [as_array(x) for x in inputs]
        counts = {
            "inputs": (len(arrays), len(self.inputs)),
            "output_shapes": (len(output_shapes), len(self.outputs)),
            "output_dtypes": (len(output_dtypes), len(self.outputs)),
        }
        for what, (given, wanted) in counts.items():
            if given != wanted:
                raise ValueError(f"[{self.name}] {given} {what}: expected {wanted}")
        specs = [(tuple(s), np.dtype(d)) for s, d in zip(output_shapes, output_dtypes, strict=True)]
        for shape, dtype in (*(a.node.specs[0] for a in arrays), *specs):
            if dtype not in KINDS or any(isinstance(d, Rows) or int(d) < 0 for d in shape):
                raise ValueError(
                    f"[{self.name}] an array of {dtype}{list(shape)}: expected one of "
                    f"{', '.join(map(str, KINDS))} and dimensions that are known"
                )
        if (
            len(grid) != 3
            or min(grid) < 1
            or tuple(threadgroup)[1:] != (1, 1)
            or threadgroup[0] < 1
        ):
            raise ValueError(
                f"[{self.name}] grid={grid}, threadgroup={threadgroup}: expected three positive "
                "numbers of threads, and (n, 1, 1)"
            )
        blocks = -(-grid[0] // threadgroup[0]), grid[1], grid[2]
        attrs = {"kernel": self, "specs": specs, "grid": blocks, "block": threadgroup[0]}
        node = Node(CUSTOM, tuple(a.node for a in arrays), attrs)
        if len(specs) == 1:
            return [array(node)]
        return [array(item(node, i)) for i in range(len(specs))]

    def on_cpu(self, specs: Sequence[Spec]) -> Any:
        """The kernel for arrays of these shapes and dtypes."""
        if self.cpu is None:
            raise NotImplementedError(f"[{self.name}] has no CPU function: give cpu=")
        if odd := [str(d) for _, d in specs if KINDS[d] not in _CPU_KINDS]:
            raise ValueError(f"[{self.name}] Numba knows no {odd[0]}: cast it to float32 before")
        key = tuple((len(shape), dtype) for shape, dtype in specs)
        if key not in self._made:
            from nanocupy.device.cpu.custom import CustomKernel as Compiled

            self._made[key] = Compiled(self.name, self.cpu, key)
        return self._made[key]

    def on_cuda(self, ins: Sequence[Spec], outs: Sequence[Spec]) -> WrittenKernel:
        """The kernel for arrays of these dtypes."""
        if self.cuda is None:
            raise NotImplementedError(f"[{self.name}] has no CUDA source: give cuda=")
        kinds = [chains.CUDA_TYPES[KINDS[d]] for _, d in (*ins, *outs)]
        names = (*self.inputs, *self.outputs)
        const = ["const "] * len(ins) + [""] * len(outs)
        parameters = [f"{c}{k}* {n}" for c, k, n in zip(const, kinds, names, strict=True)]
        parameters += [f"long long {n}_size" for n in names]
        text = (
            f"#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n{self.header}\n"
            f"__global__ void {self.name}({', '.join(parameters)}) {{\n{self.cuda}\n}}\n"
        )
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return WrittenKernel(f"{self.name}_{key}", self.name, text)


def custom_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    cpu: Callable[..., None] | None = None,
    cuda: str | None = None,
    header: str = "",
) -> CustomKernel:
    """An operation of one's own, as `mlx.core.fast.metal_kernel` is one.

    The result is called as `kernel(inputs=[...], output_shapes=[...], output_dtypes=[...],
    grid=(x, y, z), threadgroup=(n, 1, 1))` and gives a list of arrays, recorded as any other
    operation. Arrays reach a kernel without gaps; what it does not write is anything.

    Args:
        name: of the kernel.
        input_names, output_names: of its parameters.
        cpu: `cpu(*inputs, *outputs, thread, threads)`, a Python function that Numba compiles: each
            of `threads` threads does its share. Arrays have their shapes (one of no dimensions has
            one element), and dtypes other than float16 and bfloat16. It allocates nothing and
            raises nothing. `grid` is not asked.
        cuda: the body of a CUDA kernel whose parameters are pointers of these names, and
            `<name>_size`, how many elements each has. `grid` is in threads, of which `threadgroup`
            make a block: perhaps more threads run than there are elements.
        header: CUDA source before the kernel.

    Raises:
        ValueError: names, shapes or dtypes that cannot be.
        NotImplementedError: it runs where it has no kernel.
    """
    return CustomKernel(name, input_names, output_names, cpu, cuda, header)


def _infer(*_: Spec, specs: list[Spec], **__: Any) -> list[Spec]:
    return list(specs)


def _numpy(*arrays: np.ndarray, kernel: CustomKernel, specs: list[Spec], **_: Any) -> Any:
    ins = [np.ascontiguousarray(x).reshape(x.shape) for x in arrays]
    outs = [empty(tuple(shape), dtype) for shape, dtype in specs]
    compiled = kernel.on_cpu([(x.shape, x.dtype) for x in (*ins, *outs)])
    words = [x.ctypes.data for x in (*ins, *outs)] + [d for x in (*ins, *outs) for d in x.shape]
    serial = max(x.size for x in (*ins, *outs)) <= chains.SERIAL
    chains.call(compiled.address, (ctypes.c_int64 * len(words))(*words), serial)
    return outs if len(outs) > 1 else outs[0]


def _lower(to: Lowering, node: Node) -> None:
    kernel: CustomKernel = node.attrs["kernel"]
    specs = node.attrs["specs"]
    ins = [to.contiguous(n, to.of(n))[: size(n.shape)] for n in node.inputs]
    outs = [to.of(node, i).view[: size(shape)] for i, (shape, _) in enumerate(specs)]
    reads = [n.specs[0] for n in node.inputs]
    if to.device.kind == "cuda":
        sizes = [np.int64(size(shape)) for shape, _ in (*reads, *specs)]
        made = kernel.on_cuda(reads, specs)
        grid, block = node.attrs["grid"], node.attrs["block"]
        launch = Launch(made, (*ins, *outs, *sizes), grid, block)
    else:
        dims = [int(d) for shape, _ in (*reads, *specs) for d in shape]
        launch = Launch(kernel.on_cpu([*reads, *specs]), (*ins, *outs, *dims))
    to.add(Rows(1, to.constant(np.array([1]))), lambda _: launch)


CUSTOM = Op("custom_kernel", _infer, _numpy, _lower)
