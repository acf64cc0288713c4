"""Chains as machine code: LLVM IR, sixteen lanes at a time, under the ABI of every kernel.

No Numba: a chain is compiled in milliseconds, in the process that asks for it. The arguments of a
kernel are those of `Loops.counts`. Threads share the rows' blocks of sixteen elements.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from nanocupy.device.chain import HALVES, Chain, Loops, Step, item_bytes
from nanocupy.device.cpu import jit, target
from nanocupy.device.cpu.llvm_ir import (
    LANES,
    call,
    emit_bf16_to_f32,
    emit_f16_to_f32,
    emit_f32_to_bf16,
    emit_f32_to_f16,
    i1,
    i8,
    i16,
    i32,
    i64,
    splat,
)  # fmt: skip

_SCALARS: dict[str, Any] = {
    "bool": i1, "f32": ir.FloatType(), "f64": ir.DoubleType(),
    **{f"{sign}{bits}": ir.IntType(bits) for sign in "iu" for bits in (8, 16, 32, 64)},
}  # fmt: skip
_IN_MEMORY: dict[str, Any] = {**_SCALARS, "bool": i8, "f16": i16, "bf16": i16}
_WIDEN = {"f16": emit_f16_to_f32, "bf16": emit_bf16_to_f32}
_NARROW = {"f16": emit_f32_to_f16, "bf16": emit_f32_to_bf16}
_INT_OPS = {"add": "add", "sub": "sub", "mul": "mul", "and": "and_", "or": "or_", "xor": "xor"}
_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


def _vector(scalar: Any) -> Any:
    return ir.VectorType(scalar, LANES)


def _filled(kind: str, value: Any) -> Any:
    return ir.Constant(_vector(_SCALARS[kind]), [value] * LANES)


# ---- one step


def emit(b: Any, chain: Chain, step: Step, values: list[Any]) -> Any:
    """The vector of a step's values."""
    if step.op == "const":
        return _filled(step.kind, step.args[0])
    x, *rest = (values[n] for n in step.args)
    kind = chain.kind_of(step.args[0])
    if step.op in _COMPARE:
        return _compare(b, step.op, kind, x, rest[0])
    if step.op == "select":
        return b.select(x, *rest)
    if step.op == "cast":
        return _cast(b, kind, step.kind, x)
    if step.op in HALVES:
        return _WIDEN[step.op](b, _NARROW[step.op](b, x))
    if step.op in ("bits", "float"):
        return b.bitcast(x, _vector(_SCALARS[step.kind]))
    if step.op == "toint":
        return b.fptosi(x, _vector(i32))
    return (_float if kind in ("f32", "f64") else _int)(b, step, x, rest)


def _compare(b: Any, op: str, kind: str, x: Any, y: Any) -> Any:
    if kind in ("f32", "f64"):
        test = b.fcmp_unordered if op == "ne" else b.fcmp_ordered
    else:
        test = b.icmp_signed if kind[0] == "i" else b.icmp_unsigned
    return test(_COMPARE[op], x, y)


def _float(b: Any, step: Step, x: Any, rest: list[Any]) -> Any:
    if step.op in _FLOAT_OPS:
        return getattr(b, _FLOAT_OPS[step.op])(x, *rest)
    if step.op == "neg":
        return b.fneg(x)
    name = {"abs": "fabs"}.get(step.op, step.op)
    return call(b, f"llvm.{name}.v{LANES}{step.kind}", x.type, x, *rest)


def _int(b: Any, step: Step, x: Any, rest: list[Any]) -> Any:
    if step.op in _INT_OPS:
        return getattr(b, _INT_OPS[step.op])(x, *rest)
    if step.op == "neg":
        return b.neg(x)
    if step.op == "not":
        return b.not_(x)
    shift, signed = rest[0], step.kind[0] == "i"
    most = _filled(step.kind, x.type.element.width - 1)
    inside = b.icmp_unsigned("<=", shift, most)
    if step.op == "shl":
        return b.select(inside, b.shl(x, b.select(inside, shift, most)), _filled(step.kind, 0))
    by = b.select(inside, shift, most)
    return b.ashr(x, by) if signed else b.select(inside, b.lshr(x, by), _filled(step.kind, 0))


def _cast(b: Any, old: str, new: str, x: Any) -> Any:
    to = _vector(_SCALARS[new])
    if old in ("f32", "f64"):
        return b.fptrunc(x, to) if new == "f32" else b.fpext(x, to)
    if new in ("f32", "f64"):
        return b.sitofp(x, to) if old[0] == "i" else b.uitofp(x, to)
    width = x.type.element.width
    if width == to.element.width:
        return x
    if width > to.element.width:
        return b.trunc(x, to)
    return b.sext(x, to) if old[0] == "i" else b.zext(x, to)


# ---- memory


def _from_memory(b: Any, kind: str, x: Any) -> Any:
    if kind == "bool":
        return b.icmp_unsigned("!=", x, ir.Constant(x.type, [0] * LANES))
    return _WIDEN[kind](b, x) if kind in HALVES else x


def _to_memory(b: Any, kind: str, x: Any) -> Any:
    if kind == "bool":
        return b.zext(x, _vector(i8))
    if kind == "bf16":  # rounded already: the lower half is empty
        bits = b.lshr(b.bitcast(x, _vector(i32)), _filled("i32", 16))
        return b.trunc(bits, _vector(i16))
    return _NARROW[kind](b, x) if kind in HALVES else x


# ---- the kernel


class Writer:
    """Writes one kernel: function `symbol`, in a module of its own."""

    def __init__(self, chain: Chain, loops: Loops, symbol: str) -> None:
        self.chain, self.loops = chain, loops
        self.module = ir.Module(symbol)
        self.module.triple = target.triple()
        signature = ir.FunctionType(i64, [i64.as_pointer(), i64, i64])
        self.function = ir.Function(self.module, signature, symbol)
        self.b = ir.IRBuilder(self.function.append_basic_block())
        self._write()

    def _argument_lists(self) -> dict[str, list[Any]]:
        pointer, place = self.function.args[0], 0
        lists: dict[str, list[Any]] = {}
        for name, count in self.loops.counts(self.chain).items():
            at = [self.b.gep(pointer, [ir.Constant(i64, place + i)]) for i in range(count)]
            lists[name] = [self.b.load(p) for p in at]
            place += count
        return lists

    def _write(self) -> None:
        b, (_, thread, threads) = self.b, self.function.args
        self.a = self._argument_lists()
        count = b.load(b.inttoptr(self.a["rows"][0], i64.as_pointer()))
        dims = [b.mul(count, self.a["scale"][0]), *self.a["dims"]]
        self.width = dims[-1]
        self.rows = functools.reduce(b.mul, dims[:-1], ir.Constant(i64, 1))
        self.dims = dims
        self.whole = b.lshr(self.width, ir.Constant(i64, 4))
        self.rest = b.trunc(b.and_(self.width, ir.Constant(i64, 15)), i32)
        some = b.zext(b.icmp_signed(">", self.rest, ir.Constant(i32, 0)), i64)
        self.blocks = b.add(self.whole, some)
        total = b.mul(self.rows, self.blocks)
        first = b.sdiv(b.mul(total, thread), threads)
        last = b.sdiv(b.mul(total, b.add(thread, ir.Constant(i64, 1))), threads)
        alone = {
            n: self._splat_at(n, self.a["ins"][n])
            for n, way in enumerate(self.loops.ways)
            if way == "all"
        }
        with b.if_then(b.icmp_signed("<", first, last)):
            start = b.sdiv(first, self.blocks)
            stop = b.add(b.sdiv(b.sub(last, ir.Constant(i64, 1)), self.blocks), ir.Constant(i64, 1))
            self._loop(start, stop, lambda row: self._row(row, first, last, dict(alone)))
        if self.loops.stream and target.is_x86():
            call(b, "llvm.x86.sse.sfence", ir.VoidType())
        b.ret(ir.Constant(i64, 0))

    def _loop(self, start: Any, stop: Any, body: Callable[[Any], None]) -> None:
        """for i in range(start, stop): body(i)."""
        b = self.b
        before, top = b.block, b.append_basic_block()
        end = b.append_basic_block()
        b.cbranch(b.icmp_signed("<", start, stop), top, end)
        b.position_at_end(top)
        i = b.phi(i64)
        i.add_incoming(start, before)
        body(i)
        after = b.add(i, ir.Constant(i64, 1))
        i.add_incoming(after, b.block)
        b.cbranch(b.icmp_signed("<", after, stop), top, end)
        b.position_at_end(end)

    def _row(self, row: Any, first: Any, last: Any, fixed: dict[int, Any]) -> None:
        b, base = self.b, self.b.mul(row, self.blocks)
        low, high = b.sub(first, base), b.sub(last, base)
        low = b.select(b.icmp_signed(">", low, ir.Constant(i64, 0)), low, ir.Constant(i64, 0))
        high = b.select(b.icmp_signed("<", high, self.blocks), high, self.blocks)
        whole = b.select(b.icmp_signed("<", high, self.whole), high, self.whole)
        starts = self._starts(row)
        element = b.mul(row, self.width)
        outs = [
            b.add(address, b.mul(element, ir.Constant(i64, item_bytes(kind))))
            for address, (_, kind) in zip(self.a["outs"], self.chain.outputs, strict=True)
        ]
        fixed |= {
            n: self._splat_at(n, starts[n]) for n, w in enumerate(self.loops.ways) if w == "one"
        }
        self._loop(low, whole, lambda block: self._block(block, starts, outs, fixed, None))
        with b.if_then(b.icmp_signed(">", high, self.whole), likely=False):
            lanes = ir.Constant(_vector(i32), list(range(LANES)))
            mask = b.icmp_signed("<", lanes, splat(b, self.rest))
            self._block(self.whole, starts, outs, fixed, mask)

    def _starts(self, row: Any) -> list[Any]:
        """Where each input's row begins."""
        b, n = self.b, self.loops.outer + 1
        index, places = row, []
        for dim in reversed(self.dims[1:-1]):
            places.append(b.srem(index, dim))
            index = b.sdiv(index, dim)
        places = [index, *reversed(places)] if self.loops.outer else []
        starts = []
        for number, address in enumerate(self.a["ins"]):
            for place, axis in zip(places, range(n - 1), strict=True):
                stride = self.a["strides"][number * n + axis]
                address = b.add(address, b.mul(place, stride))
            starts.append(address)
        return starts

    def _splat_at(self, number: int, address: Any) -> Any:
        b, kind = self.b, self.chain.inputs[number]
        scalar = b.load(b.inttoptr(address, _IN_MEMORY[kind].as_pointer()), align=item_bytes(kind))
        return _from_memory(b, kind, splat(b, scalar))

    def _block(
        self, block: Any, starts: list[Any], outs: list[Any], fixed: dict[int, Any], mask: Any
    ) -> None:
        """Sixteen elements; the last ones of a row under a mask."""
        b, chain = self.b, self.chain
        column = b.shl(block, ir.Constant(i64, 4))
        values = [
            fixed[n] if n in fixed else self._load(n, starts[n], column, mask)
            for n in range(len(chain.inputs))
        ]
        for step in chain.steps:
            values.append(emit(b, chain, step, values))
        for (number, kind), start in zip(chain.outputs, outs, strict=True):
            self._store(_to_memory(b, kind, values[number]), kind, start, column, mask)

    def _load(self, number: int, start: Any, column: Any, mask: Any) -> Any:
        b, kind = self.b, self.chain.inputs[number]
        vector, size = _vector(_IN_MEMORY[kind]), item_bytes(kind)
        nothing = ir.Constant(vector, [0] * LANES)
        if self.loops.ways[number] == "row":
            address = b.add(start, b.mul(column, ir.Constant(i64, size)))
            pointer = b.inttoptr(address, vector.as_pointer())
            if mask is None:
                return _from_memory(b, kind, b.load(pointer, align=size))
            name = f"llvm.masked.load.{_suffix(vector)}.p0"
            found = call(b, name, vector, pointer, ir.Constant(i32, size), mask, nothing)
            return _from_memory(b, kind, found)
        stride = self.a["strides"][number * (self.loops.outer + 1) + self.loops.outer]
        lanes = ir.Constant(_vector(i64), list(range(LANES)))
        places = b.mul(b.add(splat(b, column), lanes), splat(b, stride))
        pointers = b.inttoptr(
            b.add(places, splat(b, start)), _vector(_IN_MEMORY[kind].as_pointer())
        )
        every = mask if mask is not None else ir.Constant(_vector(i1), [1] * LANES)
        name = f"llvm.masked.gather.{_suffix(vector)}.v{LANES}p0"
        found = call(b, name, vector, pointers, ir.Constant(i32, size), every, nothing)
        return _from_memory(b, kind, found)

    def _store(self, x: Any, kind: str, start: Any, column: Any, mask: Any) -> None:
        b, size = self.b, item_bytes(kind)
        address = b.add(start, b.mul(column, ir.Constant(i64, size)))
        pointer = b.inttoptr(address, x.type.as_pointer())
        if mask is not None:
            name = f"llvm.masked.store.{_suffix(x.type)}.p0"
            call(b, name, ir.VoidType(), x, pointer, ir.Constant(i32, size), mask)
            return
        stored = b.store(x, pointer, align=LANES * size if self.loops.stream else size)
        if self.loops.stream:
            stored.set_metadata("nontemporal", self.module.add_metadata([ir.Constant(i32, 1)]))


def _suffix(vector: Any) -> str:
    """LLVM's name of a vector type."""
    element = {"float": "f32", "double": "f64"}.get(str(vector.element), str(vector.element))
    return f"v{vector.count}{element}"


def source(chain: Chain, loops: Loops, symbol: str) -> str:
    """The kernel in LLVM IR."""
    return str(Writer(chain, loops, symbol).module)


# ---- compiled


class ChainKernel:
    """A kernel made of a chain, compiled at its first use, and kept on disk as others are."""

    by_numba = False

    def __init__(self, chain: Chain, loops: Loops) -> None:
        self.chain, self.loops = chain, loops
        self.name = f"chain_{chain.key}_{loops.key}"
        self.source = f"chain:{self.name}"

    def __repr__(self) -> str:
        return f"ChainKernel({self.name})"

    @property
    def text(self) -> str:
        """Its source."""
        return source(self.chain, self.loops, jit.symbol(self.source))

    @property
    def ready(self) -> bool:
        return jit.is_ready(self.source)

    @functools.cached_property
    def address(self) -> int:
        return jit.address(self.source, self._compile)

    def _compile(self) -> bytes:
        module = llvm.parse_assembly(self.text)
        machine = jit.machine(target.cpu_name(), target.feature_string(), 3)
        module.data_layout = str(machine.target_data)
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
        return bytes(machine.emit_object(module))
