"""Write the step's keys and values into the paged cache."""

from __future__ import annotations

from typing import Any

from nanocupy.device.cpu.raw import load_i32, load_i64
from nanocupy.device.cpu.simd import (
    LANES,
    A,
    F,
    emit_f32_to_bf16,
    emit_f32_to_f16,
    f32,
    fn,
    i16,
    i32,
    i64,
    op,
    pointer,
    vload,
    void,
    vstore,
    vstore_bf16,
    vstore_f16,
)


def _scatter(kind: str) -> Any:
    """store(p, v): lane i to the i-th row of 16 values at p, that is, a column of a tile of K."""
    itemsize, word = (4, f32) if kind == "f32" else (2, i16)

    def emit(b: Any, p: Any, v: Any) -> None:
        if kind != "f32":
            v = (emit_f32_to_f16 if kind == "f16" else emit_f32_to_bf16)(b, v)
        for lane in range(LANES):
            address = b.add(p, i64(LANES * itemsize * lane))
            value = b.extract_element(v, i32(lane))
            b.store(value, pointer(b, address, word), align=itemsize)

    emit.__name__ = f"scatter_{kind}"
    return op(void, A, F)(emit)


def _kernel(kind: str) -> Any:
    store_column = _scatter(kind)
    store_row = {"f32": vstore, "f16": vstore_f16, "bf16": vstore_bf16}[kind]
    itemsize = 4 if kind == "f32" else 2

    @fn
    def write(k_cache, v_cache, k, v, size, lane):
        """One token of one head; the caches' addresses are those of its tile."""
        for d in range(0, size, 16):
            store_column(k_cache + itemsize * (16 * d + lane), vload(k + 4 * d))
            store_row(v_cache + itemsize * (size * lane + d), vload(v + 4 * d))

    def kv_write(a, thread, threads):
        """a: K cache, V cache, k, v, slots i32, rows*, KV heads, head_dim, block size, blocks,
        k offset, k stride, v offset, v stride (bytes).

        A row with slot -1 is skipped. Code 1: a slot outside the cache.
        """
        heads, size, block_size = a[6], a[7], a[8]
        tile = 16 * size * itemsize
        count = load_i64(a[5]) * heads
        for i in range(count * thread // threads, count * (thread + 1) // threads):
            row = i // heads
            head = i - row * heads
            slot = load_i32(a[4] + 4 * row)
            if slot == -1:
                continue
            if slot < 0 or slot >= a[9] * block_size:
                return 1
            block = slot // block_size
            place = slot - block * block_size
            offset = tile * ((block * heads + head) * (block_size // 16) + place // 16)
            k = a[2] + a[10] + a[11] * row + 4 * size * head
            v = a[3] + a[12] + a[13] * row + 4 * size * head
            write(a[0] + offset, a[1] + offset, k, v, size, place % 16)
        return 0

    return kv_write


kv_write_f32, kv_write_f16, kv_write_bf16 = (_kernel(kind) for kind in ("f32", "f16", "bf16"))
