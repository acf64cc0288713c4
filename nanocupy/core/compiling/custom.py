"""Custom kernels: a Numba function for the CPU, CUDA source for GPUs, as one operation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array
from nanocupy.core.recorder.graph import Node, Op, Spec, item, size
from nanocupy.core.recorder.heap import empty
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.device.protocols import Rows
from nanocupy.dtypes import KINDS
from nanocupy.kernels import launches_of
from nanocupy.kernels.custom import Source

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


class CustomKernel:
    """A custom kernel that can be called on arrays; see `custom_kernel`."""

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
        self.name = name
        self.source = Source(name, tuple(input_names), tuple(output_names), cpu, cuda, header)

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
            "inputs": (len(arrays), len(self.source.inputs)),
            "output_shapes": (len(output_shapes), len(self.source.outputs)),
            "output_dtypes": (len(output_dtypes), len(self.source.outputs)),
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
        attrs = {"source": self.source, "specs": specs, "grid": blocks, "block": threadgroup[0]}
        node = Node(CUSTOM, tuple(a.node for a in arrays), attrs)
        if len(specs) == 1:
            return [array(node)]
        return [array(item(node, i)) for i in range(len(specs))]


def custom_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    cpu: Callable[..., None] | None = None,
    cuda: str | None = None,
    header: str = "",
) -> CustomKernel:
    """A custom operation, as `mlx.core.fast.metal_kernel` is one.

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


def _numpy(*arrays: np.ndarray, source: Source, specs: list[Spec], **_: Any) -> Any:
    ins = [np.ascontiguousarray(x).reshape(x.shape) for x in arrays]
    outs = [empty(tuple(shape), dtype) for shape, dtype in specs]
    launches_of("cpu").custom.run(source, [*ins, *outs])
    return outs if len(outs) > 1 else outs[0]


def _lower(to: Lowering, node: Node) -> None:
    attrs = node.attrs
    arrays = [to.contiguous(n, to.of(n))[: size(n.shape)] for n in node.inputs]
    arrays += [to.of(node, i).view[: size(shape)] for i, (shape, _) in enumerate(attrs["specs"])]
    specs = [*(n.specs[0] for n in node.inputs), *attrs["specs"]]
    how = (attrs["source"], arrays, specs, attrs["grid"], attrs["block"])
    launch = to.launches.custom.launch(to.device, *how)
    to.add(Rows(1, to.constant(np.array([1]))), lambda _: launch)


CUSTOM = Op("custom_kernel", _infer, _numpy, _lower)
