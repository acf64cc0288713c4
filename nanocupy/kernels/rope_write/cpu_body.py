"""Turn the step's queries and keys, and write keys and values into the paged cache."""

from __future__ import annotations

from typing import Any

from nanocupy.device.cpu.raw import load_i32, load_i64, store_f32
from nanocupy.device.cpu.simd import (
    LANES,
    F,
    I,
    emit_f32_to_bf16,
    emit_f32_to_f16,
    f4,
    f32,
    fn,
    i8,
    i8t,
    i16,
    i32,
    i64,
    istore_i8,
    op,
    pointer,
    to_int,
    vector,
    vload,
    void,
    vstore,
    vstore_bf16,
    vstore_f16,
)
from nanocupy.device.cpu.simd import (
    A as Address,
)
from nanocupy.kernels.attention.cpu_tiles import ITEMSIZE, SCALE_BYTES
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.quantize.cpu_body import scale_of
from nanocupy.kernels.rope.cpu_body import rotate
from nanocupy.kernels.rope_write.cpu import RopeWriteArgs

A = indices(RopeWriteArgs)


def _emit_column(b: Any, p: Any, values: Any, word: Any) -> None:
    """Lane i to the i-th row of 16 words at p, that is, a column of a tile of K."""
    itemsize = word.width // 8 if word is not f32 else 4
    for lane in range(LANES):
        address = b.add(p, i64(LANES * itemsize * lane))
        b.store(b.extract_element(values, i32(lane)), pointer(b, address, word), align=itemsize)


@op(void, Address, F)
def store_column_f32(b: Any, p: Any, v: Any) -> None:
    _emit_column(b, p, v, f32)


@op(void, Address, F)
def store_column_f16(b: Any, p: Any, v: Any) -> None:
    _emit_column(b, p, emit_f32_to_f16(b, v), i16)


@op(void, Address, F)
def store_column_bf16(b: Any, p: Any, v: Any) -> None:
    _emit_column(b, p, emit_f32_to_bf16(b, v), i16)


@op(void, Address, I)
def store_column_i8(b: Any, p: Any, codes: Any) -> None:
    _emit_column(b, p, b.trunc(codes, vector(i8, LANES)), i8)


def _floats(kind: str) -> Any:
    """write(k_cache, v_cache, k, v, size, lane): one token of one head into its tiles."""
    store_column = {"f32": store_column_f32, "f16": store_column_f16, "bf16": store_column_bf16}
    store_row = {"f32": vstore, "f16": vstore_f16, "bf16": vstore_bf16}
    column, line, itemsize = store_column[kind], store_row[kind], ITEMSIZE[kind]

    @fn
    def write(k_cache, v_cache, k, v, size, lane):
        for d in range(0, size, 16):
            column(k_cache + itemsize * (16 * d + lane), vload(k + 4 * d))
            line(v_cache + itemsize * (size * lane + d), vload(v + 4 * d))

    return write


@fn
def write_i8(k_cache, v_cache, k, v, size, lane):
    """The same in 8 bits, each with its scale behind the tile."""
    k_scale, k_inverse = scale_of(k, size, f4(127.0))
    v_scale, v_inverse = scale_of(v, size, f4(127.0))
    for d in range(0, size, 16):
        store_column_i8(k_cache + 16 * d + lane, to_int(vload(k + 4 * d) * k_inverse))
        istore_i8(v_cache + size * lane + d, to_int(vload(v + 4 * d) * v_inverse))
    store_f32(k_cache + 16 * size + 4 * lane, k_scale)
    store_f32(v_cache + 16 * size + 4 * lane, v_scale)


def _kernel(kind: str) -> Any:
    write = write_i8 if kind == "i8" else _floats(kind)
    itemsize, scale = ITEMSIZE[kind], SCALE_BYTES[kind]

    def rope_write(a, thread, threads):
        """Turn and write this thread's share of the heads. A row with slot -1 is not written.

        Code 1: a position outside the table; 2: a slot outside the cache.
        """
        kv_heads, size, heads, block_size = (
            a[A.kv_heads],
            a[A.head_dim],
            a[A.heads],
            a[A.block_size],
        )
        dims, traditional = a[A.dims], a[A.traditional]
        turned, tile = a[A.scratch] + thread * a[A.scratch_stride], 16 * (size * itemsize + scale)
        each = heads + kv_heads
        count = load_i64(a[A.rows]) * each
        for i in range(count * thread // threads, count * (thread + 1) // threads):
            row = i // each
            head = i - row * each
            table = i8t(0)
            if dims > 0:
                position = load_i32(a[A.positions] + 4 * row)
                if position < 0 or position >= a[A.limit]:
                    return 1
                table = a[A.table] + 4 * dims * position
            if head < heads:
                q = a[A.q] + a[A.q_stride] * row + 4 * size * head
                out = a[A.q_out] + 4 * size * (row * heads + head)
                rotate(out, q, table, size, dims, traditional)
                continue
            head -= heads
            slot = load_i32(a[A.slots] + 4 * row)
            if slot == -1:
                continue
            if slot < 0 or slot >= a[A.blocks] * block_size:
                return 2
            block = slot // block_size
            place = slot - block * block_size
            offset = block * a[A.block_stride] + tile * (head * (block_size // 16) + place // 16)
            k = a[A.k] + a[A.k_stride] * row + 4 * size * head
            v = a[A.v] + a[A.v_stride] * row + 4 * size * head
            if dims > 0:
                rotate(turned, k, table, size, dims, traditional)
                k = turned
            write(a[A.k_cache] + offset, a[A.v_cache] + offset, k, v, size, place % 16)
        return 0

    return rope_write


rope_write_f32, rope_write_f16, rope_write_bf16, rope_write_i8 = (
    _kernel(kind) for kind in ("f32", "f16", "bf16", "i8")
)
