"""Attention over a paged cache on a CPU: the cache, the launches, their working memory.

**Layout** of a layer's cache, f32, f16 or bf16, in tiles of 16 tokens:

    K [blocks][kv_heads][block_size / 16][head_dim][16 tokens]
    V [blocks][kv_heads][block_size / 16][16 tokens][head_dim]

or in 8 bits, each such tile with its tokens' scales behind it, f32 [16]: a token of a KV head is
round(x / scale), scale = max|x| / 127. Block b of the next layer comes right after block b of this.

**Arithmetic**, f32. scale * q is rounded; a score adds up along head_dim, each step one fma. (In 8
bits: of codes, then times the token's scale; p takes V's scale once l is summed.) Tokens are
reduced in chunks of 256, counted from position 0: the largest score m, p = exp(score - m), l = the
sum of p in 16 lanes that ascend and a tree, and sums of p * V, each step one fma, tokens ascending.
Chunks join in ascending order: the larger m, both parts rescaled to it. Then out = sums * (1 / l).
So a row's result depends on nothing but its own tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import FLOATS, KINDS, int8
from nanocupy.kernels.attention import KVLayout, StepRows, group_of, token_bytes
from nanocupy.kernels.attention.cpu_scratch import thread_bytes
from nanocupy.kernels.kernel import CpuKernel, MakeLaunches, Shared
from nanocupy.kernels.quantize import Codes
from nanocupy.kernels.quantize.cpu import rounding

CACHE_DTYPES = (*FLOATS, int8)
ATTEND = {KINDS[dtype]: CpuKernel(f"attention:attend_{KINDS[dtype]}") for dtype in CACHE_DTYPES}
MERGE = CpuKernel("attention:attend_merge")
LINES = 2048  # bytes: blocks that lie twice as far apart, or a multiple, share lines of L1


class AttentionArgs(NamedTuple):
    """Arguments of both kernels; strides in bytes."""

    out: DeviceArray
    q: DeviceArray
    k_cache: DeviceArray
    v_cache: DeviceArray
    block_tables: DeviceArray
    positions: DeviceArray
    sequences: DeviceArray
    rows: DeviceArray
    scale_and_cap: DeviceArray  # f32 [2]
    scratch: DeviceArray
    heads: int
    kv_heads: int
    head_dim: int
    block_size: int
    blocks: int
    max_sequences: int
    max_blocks: int  # of a sequence
    window: int
    q_stride: int
    scratch_stride: int
    block_stride: int  # of K, and of V
    row_bytes: int  # of a row of out
    group: int
    kind: int
    zero: int


def prefill_tile(layout: KVLayout) -> int:
    """Each row attends by itself, whatever its neighbours are."""
    return 0


def rounds_rows(layout: KVLayout, group: int) -> bool:
    """Whether groups of values do not cross heads."""
    return layout.head_dim % group == 0


def empty_cache(
    layout: KVLayout, device: Device, layers: int
) -> list[tuple[DeviceArray, DeviceArray]]:
    """(K, V) of each layer, zeroed.

    The layers' parts of a block lie together: of the memory set aside, only what tokens have filled
    is ever touched, and whole pages of it.
    """
    tiles = (layout.blocks, layout.kv_heads, layout.block_size // 16)
    part = layout.nbytes // (2 * layout.blocks)
    k_tile: tuple[int, ...] = (layout.head_dim, 16)
    v_tile: tuple[int, ...] = (16, layout.head_dim)
    if layout.kind == "i8":
        k_tile = v_tile = (16 * token_bytes(layout.head_dim, layout.dtype),)
    stride = 2 * layers * part
    stride += LINES if stride % (2 * LINES) == 0 else 0
    memory = device.empty((layout.blocks, stride), np.uint8)
    flat = [memory[:, i * part : (i + 1) * part].view(layout.dtype) for i in range(2 * layers)]
    pairs = zip(flat[0::2], flat[1::2], strict=True)
    return [(k.reshape(*tiles, *k_tile), v.reshape(*tiles, *v_tile)) for k, v in pairs]


def scratch(device: Device, head_dim: int, max_context: int) -> DeviceArray:
    """Working memory of `attend`, one for all layers: uint8 [threads, bytes].

    Args:
        max_context: tokens of the longest sequence.
    """
    return device.empty((device.threads, thread_bytes(head_dim, max_context)), np.uint8)


def prepare(
    device: Device, layout: KVLayout, out: DeviceArray, q: DeviceArray, k_cache: DeviceArray,
    v_cache: DeviceArray, step: StepRows, shared: Shared, *, heads: int, scale: float,
    window: int = 0, softcap: float = 0.0, q_stride: int | None = None, codes: Codes | None = None,
) -> list[tuple[Rows, MakeLaunches]]:  # fmt: skip
    """The launches of attention, with the number of rows that they are for. See `attend`."""
    context = step.block_tables.shape[1] * layout.block_size
    key = ("attention", layout.head_dim, context)
    memory = shared(key, lambda: scratch(device, layout.head_dim, context))

    def launches(rows: Rows) -> list[Launch]:
        return attend(
            *(device, layout, out, q, k_cache, v_cache, step._replace(rows=rows), memory),
            heads=heads,
            scale=scale,
            window=window,
            softcap=softcap,
            q_stride=q_stride,
            codes=codes,
        )

    return [(step.rows, launches)]


def attend(
    device: Device, layout: KVLayout, out: DeviceArray, q: DeviceArray, k_cache: DeviceArray,
    v_cache: DeviceArray, step: StepRows, scratch: DeviceArray, *, heads: int, scale: float,
    window: int = 0, softcap: float = 0.0, q_stride: int | None = None, codes: Codes | None = None,
) -> list[Launch]:  # fmt: skip
    """Attend; the K and V of the step's own rows must already be in the cache.

    The kernel fails with code 1 on a position or a sequence outside the block tables, with code 2
    on a block outside the cache.

    Args:
        out: f32 or bf16 [rows, heads, head_dim], or uint8 rows of `codes`.
        q: f32 [rows, heads, head_dim], turned by rope.
        scratch: of the function `scratch`, for as many tokens as the block tables have.
        window: how many of the last tokens count; 0 for all.
        softcap: 0 for none.
        q_stride: elements from row to row of q. Default: no gaps.
        codes: how rows are rounded; their group divides head_dim.
    """
    group_of(layout, heads)
    width = heads * layout.head_dim
    row_bytes, group, kind, zero = rounding(out, codes, width)
    args = AttentionArgs(
        out=out,
        q=q,
        k_cache=k_cache[0],
        v_cache=v_cache[0],
        block_tables=step.block_tables,
        positions=step.positions,
        sequences=step.sequences,
        rows=step.rows.count,
        scale_and_cap=device.asarray(np.array([scale, softcap], np.float32)),
        scratch=scratch,
        heads=heads,
        kv_heads=layout.kv_heads,
        head_dim=layout.head_dim,
        block_size=layout.block_size,
        blocks=layout.blocks,
        max_sequences=step.block_tables.shape[0],
        max_blocks=step.block_tables.shape[1],
        window=window,
        q_stride=4 * (width if q_stride is None else q_stride),
        scratch_stride=scratch.shape[1],
        block_stride=k_cache.strides[0],
        row_bytes=row_bytes,
        group=group,
        kind=kind,
        zero=zero,
    )
    return [Launch(ATTEND[layout.kind], args), Launch(MERGE, args)]
