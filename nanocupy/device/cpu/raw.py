"""Scalars at raw addresses, atomics and calls by address, as Numba functions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from nanocupy.device.cpu import target
from nanocupy.device.cpu.simd import A, call, f4, f32, i4, i8, i16, i32, i64, op, pointer, void


@op(f4, A)
def load_f32(b: Any, p: Any) -> Any:
    return b.load(pointer(b, p, f32), align=4)


@op(void, A, f4)
def store_f32(b: Any, p: Any, x: Any) -> Any:
    b.store(x, pointer(b, p, f32), align=4)


@op(types.int64, A)
def load_i64(b: Any, p: Any) -> Any:
    return b.load(pointer(b, p, i64), align=8)


@op(void, A, types.int64)
def store_i64(b: Any, p: Any, x: Any) -> Any:
    b.store(x, pointer(b, p, i64), align=8)


@op(types.int64, A)
def load_i32(b: Any, p: Any) -> Any:
    """The int32 at p, sign-extended."""
    return b.sext(b.load(pointer(b, p, i32), align=4), i64)


@op(void, A, types.int64)
def store_i32(b: Any, p: Any, x: Any) -> Any:
    b.store(b.trunc(x, i32), pointer(b, p, i32), align=4)


@op(types.int16, A)
def load_i16(b: Any, p: Any) -> Any:
    return b.load(pointer(b, p, i16), align=2)


@op(types.int64, A)
def load_u8(b: Any, p: Any) -> Any:
    return b.zext(b.load(pointer(b, p, i8), align=1), i64)


@op(f4, f4, f4, f4)
def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x*y + z, rounded once."""
    return call(b, "llvm.fma.f32", f32, x, y, z)


@op(types.int32, f4)
def bits_of(b: Any, x: Any) -> Any:
    """The 32 bits of a float."""
    return b.bitcast(x, i32)


@op(f4, i4)
def float_of(b: Any, x: Any) -> Any:
    """The float with these 32 bits."""
    return b.bitcast(x, f32)


# ---- for the thread pool


@op(A, A)
def atomic_load(b: Any, p: Any) -> Any:
    return b.load_atomic(pointer(b, p, i64), "seq_cst", 8)


@op(void, A, A)
def atomic_store(b: Any, p: Any, x: Any) -> Any:
    b.store_atomic(x, pointer(b, p, i64), "seq_cst", 8)


@op(void)
def pause(b: Any) -> Any:
    """Tell the core that this is a spin."""
    if target.is_x86():
        call(b, "llvm.x86.sse2.pause", ir.VoidType())
    elif target.is_arm64():
        call(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(i32, 1))


@op(void)
def yield_thread(b: Any) -> Any:
    """Give the core to another runnable thread."""
    call(b, "SwitchToThread" if target.is_windows() else "sched_yield", i32)


@op(A, A, A, A, A)
def call_kernel(b: Any, address: Any, args: Any, thread: Any, threads: Any) -> Any:
    """Call a kernel by address: int64(int64* args, int64 thread, int64 threads)."""
    signature = ir.FunctionType(i64, [i64.as_pointer(), i64, i64])
    function = b.inttoptr(address, signature.as_pointer())
    return b.call(function, [pointer(b, args, i64), thread, threads])
