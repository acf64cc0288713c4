"""Fused elementwise operations: one pass over memory for a chain of them, generated.

A chain (`device/chain.py`) is made into a kernel for the way its inputs lie: on the CPU by LLVM
(`device/cpu/chains.py`), as CUDA source on a GPU (below). Inputs may be broadcast and strided;
outputs have the full shape and no gaps. The kernel reads the first dimension from the device, so
that the number of rows may be symbolic.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.chain import DTYPES, Chain, Loops, Step, item_bytes
from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels.kernel import WrittenKernel

CUDA_BLOCK = 256
SERIAL = 16_384  # elements that one thread is done with before another would have woken
MOST_WALKS = 1024  # shapes and strides that one chain remembers
STREAM = 16 << 20  # bytes of results that no cache keeps for who reads them next
_KERNEL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

Strides = tuple[int, ...]


class Layout(NamedTuple):
    """How inputs are walked.

    Attributes:
        scale: times the number of rows, it is the first dimension.
        dims: the others.
        strides: bytes, of each input along every dimension.
        ways: see `Loops`.
    """

    scale: int
    dims: tuple[int, ...]
    strides: tuple[Strides, ...]
    ways: tuple[str, ...]

    @property
    def loops(self) -> Loops:
        return Loops(len(self.dims), self.ways)


def layout(shape: Sequence[int], strides: Sequence[Strides], kinds: Sequence[str]) -> Layout:
    """The fewest dimensions that do: neighbours that every input walks alike become one.

    Args:
        shape: of the result; the first dimension may become another when the kernel runs.
        strides: of each input, in bytes, 0 where it is broadcast.
    """
    dims, walks = [1], [[0] for _ in strides]  # the dimension of rows, which `scale` belongs to
    if shape:
        dims, walks = [int(shape[0])], [[s[0]] for s in strides]
    scale = 1
    for axis in range(1, len(shape)):
        size = int(shape[axis])
        if size == 1:
            continue
        joins = all(w[-1] == s[axis] * size for w, s in zip(walks, strides, strict=True))
        if joins or (dims[-1] == 1 and not isinstance(shape[0], Rows)):
            scale = scale * size if len(dims) == 1 else scale
            dims[-1] *= size
            for w, s in zip(walks, strides, strict=True):
                w[-1] = s[axis]
        else:
            dims.append(size)
            for w, s in zip(walks, strides, strict=True):
                w.append(s[axis])
    ways = tuple(_way(w, k) for w, k in zip(walks, kinds, strict=True))
    return Layout(scale, tuple(dims[1:]), tuple(tuple(w) for w in walks), ways)


def _way(walk: list[int], kind: str) -> str:
    if not any(walk):
        return "all"
    if walk[-1] == 0:
        return "one"
    return "row" if walk[-1] == item_bytes(kind) else "far"


def launch(
    device: Any,
    chain: Chain,
    outs: Sequence[Any],
    ins: Sequence[Any],
    rows: Rows,
    how: Layout,
) -> Launch:
    """The chain on the first `rows` rows."""
    strides = [s for walk in how.strides for s in walk]
    numbers = (how.scale, *how.dims, *strides)
    if device.kind == "cuda":
        total = int(rows) * how.scale * math.prod(how.dims)
        grid = max(1, min(-(-total // CUDA_BLOCK), 65_535)), 1, 1
        args = (*outs, *ins, rows.count, *map(np.int64, numbers))
        return Launch(cuda_kernel(chain, how.loops), args, grid, CUDA_BLOCK)
    return Launch(cpu_kernel(chain, how.loops), (*outs, *ins, rows.count, *numbers))


@cache
def cpu_kernel(chain: Chain, loops: Loops) -> Any:
    """Made once, whoever asks."""
    from nanocupy.device.cpu.chains import ChainKernel

    return ChainKernel(chain, loops)


# ---- on NumPy arrays, now


class Walk(NamedTuple):
    """A chain on arrays of certain shapes and strides."""

    shape: tuple[int, ...]
    size: int
    kernel: Any
    function: Any
    numbers: tuple[int, ...]
    words: Any


class HostChain:
    """A chain as a function of NumPy arrays, which are broadcast.

    Args:
        empty: `empty(shape, dtype)`: where results come from.
    """

    def __init__(self, chain: Chain, empty: Callable[..., np.ndarray] = np.empty) -> None:
        self.chain, self._empty = chain, empty
        self._dtypes = [DTYPES[kind] for _, kind in chain.outputs]
        self._walks: dict[Any, Walk] = {}

    @property
    def source(self) -> str:
        """Of its kernel, made for inputs without gaps."""
        ways = ("row",) * len(self.chain.inputs)
        return str(cpu_kernel(self.chain, Loops(0, ways)).text)

    def __call__(self, *arrays: np.ndarray, out: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        """The outputs. `out`: where they go, if not to new arrays; an input of the result's shape
        and size of elements may be one."""
        key = tuple([(x.shape, x.strides) for x in arrays])
        walk = self._walks.get(key) or self._walk(key)
        outs = out or [self._empty(walk.shape, dtype) for dtype in self._dtypes]
        addresses = [x.ctypes.data for x in (*outs, *arrays)]
        words = walk.words(*addresses, *walk.numbers)
        if walk.size <= SERIAL:
            walk.function(words, 0, 1)
        else:
            call(self._kernel(walk, addresses[: len(outs)]).address, words)
        return list(outs)

    def _kernel(self, walk: Walk, outs: list[int]) -> Any:
        """The one for many elements."""
        kernel = walk.kernel
        bytes_out = walk.size * sum(d.itemsize for d in self._dtypes)
        even = kernel.loops.outer == 0 or walk.shape[-1] % 16 == 0
        if bytes_out >= STREAM and even and not any(a % 64 for a in outs):
            kernel = cpu_kernel(self.chain, kernel.loops._replace(stream=True))
        return kernel

    def _walk(self, key: Any) -> Walk:
        shapes = [shape for shape, _ in key]
        shape = np.broadcast_shapes(*shapes)
        strides = [_broadcast_strides(s, steps, shape) for s, steps in key]
        how = layout(shape, strides, self.chain.inputs)
        kernel = cpu_kernel(self.chain, how.loops)
        numbers = (
            _ONE.ctypes.data, how.scale * (shape[0] if shape else 1), *how.dims,
            *(s for walk in how.strides for s in walk),
        )  # fmt: skip
        count = sum(kernel.loops.counts(self.chain).values())
        words = ctypes.c_int64 * count
        walk = Walk(shape, math.prod(shape), kernel, _KERNEL(kernel.address), numbers, words)
        if len(self._walks) >= MOST_WALKS:
            self._walks.clear()
        return self._walks.setdefault(key, walk)


_ONE = np.ones(1, np.int64)


def _broadcast_strides(shape: Any, strides: Any, to: tuple[int, ...]) -> Strides:
    missing = len(to) - len(shape)
    own = (0 if d == 1 else s for d, s in zip(shape, strides, strict=True))
    return (*[0] * missing, *own)


def call(address: int, words: Any, serial: bool = False) -> None:
    """Run a kernel by the threads that engines run on, too; or by this one.

    Args:
        words: its arguments, a ctypes array of int64.
    """
    if serial:
        _KERNEL(address)(words, 0, 1)
        return
    from nanocupy.device.cpu import device, thread_pool

    pool = thread_pool.shared_pool(min(device.available_threads(), device.MAX_THREADS))
    table = (ctypes.c_int64 * 2)(address, ctypes.addressof(words))
    pool.run(ctypes.addressof(table), 1, pool.governor.threads)


# ---- as CUDA source


CUDA_TYPES = {
    "bool": "bool", "i8": "signed char", "i16": "short", "i32": "int", "i64": "long long",
    "u8": "unsigned char", "u16": "unsigned short", "u32": "unsigned", "u64": "unsigned long long",
    "f16": "__half", "bf16": "__nv_bfloat16", "f32": "float", "f64": "double",
}  # fmt: skip
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "eq": "==", "ne": "!=", "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
_ROUNDED = {  # never contracted into one rounding with a neighbour
    "add": "__fadd_rn", "sub": "__fsub_rn", "mul": "__fmul_rn", "div": "__fdiv_rn",
    "fma": "__fmaf_rn", "sqrt": "__fsqrt_rn", "floor": "floorf", "ceil": "ceilf",
    "trunc": "truncf", "rint": "rintf", "abs": "fabsf", "bits": "__float_as_int",
    "toint": "__float2int_rz", "f16": "ROUND(__half)", "bf16": "ROUND(__nv_bfloat16)",
}  # fmt: skip
_ROUNDED_TWICE_AS_WIDE = {  # the same of f64
    "add": "__dadd_rn", "sub": "__dsub_rn", "mul": "__dmul_rn", "div": "__ddiv_rn",
    "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint",
    "abs": "fabs",
}  # fmt: skip


@cache
def cuda_kernel(chain: Chain, loops: Loops) -> WrittenKernel:
    """Made once, whoever asks."""
    name = f"chain_{chain.key}_{loops.key}"
    return WrittenKernel(name, name, cuda_source(chain, loops, name))


def cuda_source(chain: Chain, loops: Loops, name: str) -> str:
    """A kernel in which every thread takes elements a grid apart."""
    dims = [f"d{i}" for i in range(1, loops.outer + 1)]
    outs = [f"{CUDA_TYPES[kind]}* o{i}" for i, (_, kind) in enumerate(chain.outputs)]
    ins = [f"const {CUDA_TYPES[kind]}* i{i}" for i, kind in enumerate(chain.inputs)]
    strides = [f"s{i}_{axis}" for i in range(len(ins)) for axis in range(loops.outer + 1)]
    numbers = [f"long long {n}" for n in ("scale", *dims, *strides)]
    lines = [
        "#include <cuda_bf16.h>\n#include <cuda_fp16.h>",
        "#define ROUND(T) (float)(T)",
        f"__global__ void {name}({', '.join((*outs, *ins, 'const long long* rows', *numbers))}) {{",
        "  const long long step = (long long)gridDim.x * blockDim.x;",
        f"  const long long total = {' * '.join(('*rows * scale', *dims))};",
        "  long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x;",
        "  for (; e < total; e += step) {",
        *(f"    {line}" for line in _cuda_places(loops)),
        *(f"    {_cuda_load(chain, loops, i)}" for i in range(len(ins))),
        *(f"    {_cuda_step(chain, i)}" for i in range(len(chain.steps))),
        *(
            f"    o{i}[e] = ({CUDA_TYPES[kind]})v{value};"
            for i, (value, kind) in enumerate(chain.outputs)
        ),
        "  }\n}\n",
    ]
    return "\n".join(lines)


def _cuda_places(loops: Loops) -> list[str]:
    """The element's index along every dimension, p0 to p<outer>."""
    lines, rest = [], "e"
    for axis in range(loops.outer, 0, -1):
        lines += [f"const long long p{axis} = {rest} % d{axis}, r{axis} = {rest} / d{axis};"]
        rest = f"r{axis}"
    return [*lines, f"const long long p0 = {rest};"]


def _cuda_load(chain: Chain, loops: Loops, number: int) -> str:
    kind, way = chain.inputs[number], loops.ways[number]
    place = f"i{number}[0]" if way == "all" else f"i{number}[e]"
    if way != "all" and (loops.outer or way != "row"):
        offset = " + ".join(f"p{axis} * s{number}_{axis}" for axis in range(loops.outer + 1))
        place = f"*(const {CUDA_TYPES[kind]}*)((const char*)i{number} + {offset})"
    register = CUDA_TYPES[chain.kind_of(number)]
    return f"const {register} v{number} = ({register}){place};"


def _cuda_step(chain: Chain, index: int) -> str:
    step = chain.steps[index]
    kind = CUDA_TYPES[step.kind]
    return f"const {kind} v{len(chain.inputs) + index} = ({kind})({_cuda_value(chain, step)});"


def _cuda_value(chain: Chain, step: Step) -> str:
    if step.op == "const":
        return _cuda_number(step)
    x, *rest = (f"v{n}" for n in step.args)
    kind = chain.kind_of(step.args[0])
    if step.op == "select":
        return f"{x} ? {rest[0]} : {rest[1]}"
    if step.op == "float":
        return f"__int_as_float({x})"
    if step.op == "cast":
        return x
    if step.op == "neg":
        return f"-{x}" if kind[0] == "f" else f"0 - ({_unsigned(kind)}){x}"
    if step.op == "not":
        return f"!{x}" if kind == "bool" else f"~{x}"
    if step.op in ("shl", "shr"):
        return _cuda_shift(step.op, kind, x, rest[0])
    if kind == "f32" and step.op in _ROUNDED:
        return f"{_ROUNDED[step.op]}({', '.join((x, *rest))})"
    if kind == "f64" and step.op in _ROUNDED_TWICE_AS_WIDE:
        return f"{_ROUNDED_TWICE_AS_WIDE[step.op]}({', '.join((x, *rest))})"
    if step.op in ("add", "sub", "mul") and kind[0] == "i":  # wraps, where a signed int may not
        return f"({_unsigned(kind)}){x} {_INFIX[step.op]} ({_unsigned(kind)}){rest[0]}"
    return f"{x} {_INFIX[step.op]} {rest[0]}"


def _unsigned(kind: str) -> str:
    """At least 32 bits wide, so that nothing is promoted to a signed int."""
    return "unsigned long long" if kind == "i64" else "unsigned"


def _cuda_number(step: Step) -> str:
    value = step.args[0]
    if not isinstance(value, float):
        return f"({CUDA_TYPES[step.kind]}){value}LL" if value < 2**63 else f"{value}ULL"
    if step.kind == "f32":
        return f"__int_as_float({int(np.float32(value).view(np.int32))})"
    return f"__longlong_as_double({int(np.float64(value).view(np.int64))}LL)"


def _cuda_shift(op: str, kind: str, x: str, by: str) -> str:
    bits = int(kind[1:])
    inside = f"(unsigned long long){by} < {bits}"
    if op == "shl":
        wide = "unsigned long long" if bits == 64 else "unsigned"
        return f"{inside} ? ({wide}){x} << {by} : 0"
    return (
        f"{x} >> ({inside} ? {by} : {bits - 1})"
        if kind[0] == "i"
        else f"{inside} ? {x} >> {by} : 0"
    )
