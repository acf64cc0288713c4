"""Chains on CUDA: generated source, of which every thread takes elements a grid apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from nanocupy.device.chain import Chain, Loops, Step
from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import C_TYPES, KINDS
from nanocupy.kernels.chains import Layout
from nanocupy.kernels.kernel import WrittenKernel

BLOCK = 256


def launch(
    device: Device, chain: Chain, outs: Sequence[DeviceArray], ins: Sequence[DeviceArray],
    rows: Rows, how: Layout,
) -> Launch:  # fmt: skip
    """The chain on the first `rows` rows."""
    total = int(rows) * how.scale * math.prod(how.dims)
    grid = max(1, min(-(-total // BLOCK), 65_535)), 1, 1
    args = (*outs, *ins, rows.count, *map(np.int64, how.numbers))
    return Launch(kernel_of(chain, how.loops), args, grid, BLOCK)


CUDA_TYPES = {KINDS[dtype]: c_type for dtype, c_type in C_TYPES.items()}
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
def kernel_of(chain: Chain, loops: Loops) -> WrittenKernel:
    """The kernel, made once."""
    name = f"chain_{chain.key}_{loops.key}"
    return WrittenKernel(name, name, source(chain, loops, name))


def source(chain: Chain, loops: Loops, name: str) -> str:
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
        *(f"    {line}" for line in _places(loops)),
        *(f"    {_load(chain, loops, i)}" for i in range(len(ins))),
        *(f"    {_step(chain, i)}" for i in range(len(chain.steps))),
        *(
            f"    o{i}[e] = ({CUDA_TYPES[kind]})v{value};"
            for i, (value, kind) in enumerate(chain.outputs)
        ),
        "  }\n}\n",
    ]
    return "\n".join(lines)


def _places(loops: Loops) -> list[str]:
    """The element's index along every dimension, p0 to p<outer>."""
    lines, rest = [], "e"
    for axis in range(loops.outer, 0, -1):
        lines += [f"const long long p{axis} = {rest} % d{axis}, r{axis} = {rest} / d{axis};"]
        rest = f"r{axis}"
    return [*lines, f"const long long p0 = {rest};"]


def _load(chain: Chain, loops: Loops, number: int) -> str:
    kind, way = chain.inputs[number], loops.ways[number]
    place = f"i{number}[0]" if way == "all" else f"i{number}[e]"
    if way != "all" and (loops.outer or way != "row"):
        offset = " + ".join(f"p{axis} * s{number}_{axis}" for axis in range(loops.outer + 1))
        place = f"*(const {CUDA_TYPES[kind]}*)((const char*)i{number} + {offset})"
    register = CUDA_TYPES[chain.kind_of(number)]
    return f"const {register} v{number} = ({register}){place};"


def _step(chain: Chain, index: int) -> str:
    step = chain.steps[index]
    kind = CUDA_TYPES[step.kind]
    return f"const {kind} v{len(chain.inputs) + index} = ({kind})({_value(chain, step)});"


def _value(chain: Chain, step: Step) -> str:
    if step.op == "const":
        return _number(step)
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
        return _shift(step.op, kind, x, rest[0])
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


def _number(step: Step) -> str:
    value = step.args[0]
    if not isinstance(value, float):
        return f"({CUDA_TYPES[step.kind]}){value}LL" if value < 2**63 else f"{value}ULL"
    if step.kind == "f32":
        return f"__int_as_float({int(np.float32(value).view(np.int32))})"
    return f"__longlong_as_double({int(np.float64(value).view(np.int64))}LL)"


def _shift(op: str, kind: str, x: str, by: str) -> str:
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
