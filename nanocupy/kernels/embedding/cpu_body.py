"""Rows of a packed weight as f32: the embedding looks tokens up where the tied head keeps them."""

from __future__ import annotations

from nanocupy.device.cpu.raw import (
    fma,
    load_f32,
    load_i16,
    load_i32,
    load_i64,
    load_u8,
    store_f32,
)
from nanocupy.device.cpu.simd import bf16_to_f32, f4, f16_to_f32, fn
from nanocupy.dtypes import F16, F32
from nanocupy.kernels.embedding.cpu import EmbeddingArgs
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.linear.cpu import GROUP

A = indices(EmbeddingArgs)


@fn
def half(address, kind):
    """The value of a float of a kind: F32, F16 or BF16."""
    if kind == F32:
        return load_f32(address)
    if kind == F16:
        return f16_to_f32(load_i16(address))
    return bf16_to_f32(load_i16(address))


@fn
def dense_row(base, lane, out, size, kind):
    """Row `lane` of a group of 64. bf16 lies in pairs along K."""
    for n in range(size):
        if kind == F32:
            address = base + 4 * (GROUP * n + lane)
        elif kind == F16:
            address = base + 2 * (GROUP * n + lane)
        else:
            address = base + 4 * (GROUP * (n // 2) + lane) + 2 * (n % 2)
        store_f32(out + 4 * n, half(address, kind))


@fn
def affine_row(base, lane, out, size, bits, group, kind, symmetric):
    """Row `lane` of a quantised group of 64: code * scale + bias, rounded once."""
    width = 4 if kind == F32 else 2
    codes = GROUP * group * bits // 8
    for g in range(size // group):
        block = base + g * (codes + (2 - symmetric) * GROUP * width)
        scale = half(block + codes + width * lane, kind)
        bias = f4(-(1 << (bits - 1))) * scale
        if not symmetric:
            bias = half(block + codes + width * (GROUP + lane), kind)
        for n in range(group):
            column = n % (group // 2) if bits == 4 else n
            code = load_u8(block + 4 * (GROUP * (column // 4) + lane) + column % 4)
            if bits == 4:
                code = (code >> 4) if n >= group // 2 else (code & 15)
            store_f32(out + 4 * (g * group + n), fma(f4(code), scale, bias))


@fn
def zeros(out, size):
    """A row of a token whose row is elsewhere."""
    for n in range(size):
        store_f32(out + 4 * n, f4(0))


def embedding(a, thread, threads):
    """Look up this thread's share of the tokens; rows of other parts of the table are zeros.

    Code 1: a token outside the vocabulary.
    """
    size, bits, kind = a[A.size], a[A.bits], a[A.kind]
    rows = load_i64(a[A.rows])
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        token, out = load_i32(a[A.tokens] + 4 * row), a[A.out] + 4 * size * row
        if token < 0 or token >= a[A.vocabulary]:
            return 1
        at = token - a[A.first]
        base = a[A.weight] + at // GROUP * a[A.group_bytes]
        if at < 0 or at >= a[A.n]:
            zeros(out, size)
        elif bits == 0:
            dense_row(base, at % GROUP, out, size, kind)
        else:
            affine_row(base, at % GROUP, out, size, bits, a[A.group], kind, a[A.symmetric])
    return 0
