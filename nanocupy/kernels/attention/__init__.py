"""Attention over a paged cache that `rope_write` fills.

    out[row] = sum over t of softmax(scale * q[row] . K[t]) V[t],  t in 0 .. position[row]

q, out [rows, heads, head_dim] f32. Position p of a sequence is in block `table[p // block_size]` at
place p % block_size. Query head h reads KV head h // (heads / kv_heads). With a window w only the
last w tokens count; with a softcap c a score s becomes c * tanh(s / c).

**Layout** of a layer's cache, f32, f16 or bf16. On the CPU in tiles of 16 tokens:

    K [blocks][kv_heads][block_size / 16][head_dim][16 tokens]
    V [blocks][kv_heads][block_size / 16][16 tokens][head_dim]

or in 8 bits, each such tile with its tokens' scales behind it, f32 [16]: a token of a KV head is
round(x / scale), scale = max|x| / 127. Block b of the next layer comes right after block b of this.

On CUDA K and V are both [blocks][kv_heads][block_size][head_dim], and q and out may be f16 or bf16:
see `paged_attention_cuda`.

**Arithmetic** on the CPU. scale * q is rounded; a score adds up along head_dim, each step one fma.
(In 8 bits: of codes, then times the token's scale; p takes V's scale once l is summed.)
Tokens are reduced in chunks of 256, counted from position 0: the largest score m,
p = exp(score - m), l = the sum of p in 16 lanes that ascend and a tree, and sums of p * V, each
step one fma, tokens ascending.
Chunks join in ascending order: the larger m, both parts rescaled to it. Then out = sums * (1 / l).
So a row's result depends on nothing but its own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.dtypes import FLOATS
from nanocupy.kernels import quantize
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.quantize.cpu import rounding

CHUNK = 256  # tokens reduced before they join the rest
MAX_QUERIES = 12  # queries that a unit of work holds at most
LINES = 2048  # bytes: blocks that lie twice as far apart, or a multiple, share lines of L1
F32 = np.dtype(np.float32)
KINDS = FLOATS | {np.dtype(np.int8): "i8"}
CPU = {kind: CpuKernel(f"attention:attend_{kind}") for kind in KINDS.values()}
CPU_MERGE = CpuKernel("attention:attend_merge")


@dataclass(frozen=True)
class KVLayout:
    """The cache of one layer.

    Args:
        blocks: how many blocks, the dump block included.
        block_size: tokens a block, a multiple of 16.
        head_dim: a multiple of 16, at most 256.
        dtype: float32, float16, bfloat16, or on the CPU int8.
        device: the kind of device it lies on, "cpu" or "cuda".
        activations: dtype of q and out.
    """

    blocks: int
    kv_heads: int
    head_dim: int
    block_size: int
    dtype: Any
    device: str = "cpu"
    activations: Any = F32

    def __post_init__(self) -> None:
        if self.block_size % 16 or self.block_size <= 0:
            raise ValueError(
                f"[paged_attention] block_size={self.block_size}: expected a multiple of 16"
            )
        if self.head_dim % 16 or not 0 < self.head_dim <= 256:
            raise ValueError(
                f"[paged_attention] head_dim={self.head_dim}: expected a multiple of 16, "
                "at most 256"
            )
        if np.dtype(self.dtype) not in (KINDS if self.device == "cpu" else FLOATS):
            raise ValueError(
                f"[paged_attention] cache of {np.dtype(self.dtype)}: expected float32, float16, "
                "bfloat16, or on a CPU int8"
            )

    @property
    def kind(self) -> str:
        return KINDS[np.dtype(self.dtype)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of K's array; on the CPU V's has the last two dimensions exchanged. In 8 bits the
        last dimension is that of bytes: codes of a tile, then its scales."""
        if self.device == "cuda":
            return (self.blocks, self.kv_heads, self.block_size, self.head_dim)
        tiles = (self.blocks, self.kv_heads, self.block_size // 16)
        if self.kind == "i8":
            return (*tiles, 16 * token_bytes(self.head_dim, self.dtype))
        return (*tiles, self.head_dim, 16)

    @property
    def nbytes(self) -> int:
        """Bytes of K and V together."""
        tokens = self.blocks * self.kv_heads * self.block_size
        return 2 * tokens * token_bytes(self.head_dim, self.dtype)

    def empty(self, device: Any, layers: int = 1) -> list[tuple[Any, Any]]:
        """(K, V) of each layer, zeroed.

        On the CPU the layers' parts of a block lie together: of the memory set aside, only what
        tokens have filled is ever touched, and whole pages of it.
        """
        if self.device == "cuda":
            return [
                (device.empty(self.shape, self.dtype), device.empty(self.shape, self.dtype))
                for _ in range(layers)
            ]
        k_shape = v_shape = self.shape
        if self.kind != "i8":
            *outer, size, tokens = self.shape
            v_shape = (*outer, tokens, size)
        part = self.nbytes // (2 * self.blocks)
        stride = 2 * layers * part
        stride += LINES if stride % (2 * LINES) == 0 else 0
        memory = device.empty((self.blocks, stride), np.uint8)
        flat = [memory[:, i * part : (i + 1) * part].view(self.dtype) for i in range(2 * layers)]
        return [
            (k.reshape(k_shape), v.reshape(v_shape))
            for k, v in zip(flat[0::2], flat[1::2], strict=True)
        ]

    def read(
        self, k_cache: Any, v_cache: Any, table: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """K and V of a sequence's first positions, each f32 [length, kv_heads, head_dim].

        Args:
            k_cache, v_cache: on the host.
        """
        blocks = table[: -(-length // self.block_size)]
        k, v = (np.asarray(cache)[blocks] for cache in (k_cache, v_cache))
        if self.kind == "i8":
            k, v = self._unpacked(k, (self.head_dim, 16)), self._unpacked(v, (16, self.head_dim))
        k, v = k.astype(np.float32), v.astype(np.float32)
        if self.device == "cuda":
            k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        else:
            k, v = k.transpose(0, 2, 4, 1, 3), v.transpose(0, 2, 3, 1, 4)
        shape = (-1, self.kv_heads, self.head_dim)
        return k.reshape(shape)[:length], v.reshape(shape)[:length]

    def _unpacked(self, tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """int8 [..., bytes of a tile] -> f32 [..., *shape]."""
        codes = tiles[..., : 16 * self.head_dim].reshape(*tiles.shape[:-1], *shape)
        scales = np.ascontiguousarray(tiles[..., 16 * self.head_dim :]).view(np.float32)
        spread = scales[..., None, :] if shape[1] == 16 else scales[..., :, None]
        return np.asarray(codes.astype(np.float32) * spread)


def token_bytes(head_dim: int, dtype: Any) -> int:
    """Bytes of a token's K, or V, of one head."""
    dtype = np.dtype(dtype)
    return head_dim * dtype.itemsize + (4 if KINDS[dtype] == "i8" else 0)


def reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, window: int = 0, softcap: float = 0.0
) -> np.ndarray:
    """One row: q [heads, head_dim]; k, v [length, kv_heads, head_dim] up to the row's position.

    Summed in f64 in one go; the kernel's chunks change roundings, not the value.
    """
    start = max(0, len(k) - window) if window else 0
    group = q.shape[0] // k.shape[1]
    k, v = (np.repeat(t[start:].astype(np.float64), group, axis=1) for t in (k, v))
    scores = np.einsum("hd,thd->ht", (q * np.float32(scale)).astype(np.float64), k)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    p = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(np.einsum("ht,thd->hd", p / p.sum(1, keepdims=True), v), np.float32)


def scratch(device: Any, head_dim: int, max_context: int) -> Any:
    """Working memory for `launch`, one for all layers: uint8 [threads, bytes].

    Args:
        max_context: tokens of the longest sequence.
    """
    state = 128 + 4 * MAX_QUERIES * head_dim
    fixed = 2 * 1024 * MAX_QUERIES + 16 * (CHUNK // 16 + 8) + 128 + 192 + 32 * 128
    states = 2 + -(-max_context // CHUNK)
    return device.empty((device.threads, fixed + states * state), np.uint8)


def launch(
    device: Any,
    layout: KVLayout,
    out: Any,
    q: Any,
    k_cache: Any,
    v_cache: Any,
    positions: Any,
    seqs: Any,
    block_tables: Any,
    rows: Rows,
    scratch: Any,
    *,
    heads: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    q_offset: int = 0,
    q_stride: int | None = None,
    codes: quantize.Codes | None = None,
) -> list[Launch]:
    """Attend; the K and V of the step's own rows must already be in the cache.

    The kernel fails with code 1 on a position or a sequence outside `block_tables`, with code 2 on
    a block outside the cache.

    Args:
        out: f32 or bf16 [rows, heads, head_dim], or uint8 rows of `codes`.
        q: f32 [rows, heads, head_dim] inside a wider buffer, turned by rope; row r starts at
            element q_offset + r * q_stride.
        positions: int32 [rows].
        seqs: int32 [rows], each row's line of `block_tables`.
        block_tables: int32 [max_seqs, max_blocks].
        rows: how many rows are in use.
        scratch: from `scratch`, for at least max_blocks * block_size tokens.
        window: how many of the last tokens count; 0 for all.
        softcap: 0 for none.
        codes: how rows are rounded; their group divides head_dim.
    """
    if heads % layout.kv_heads:
        raise ValueError(
            f"[paged_attention] {heads} heads on {layout.kv_heads} KV heads: expected a multiple"
        )
    max_seqs, max_blocks = block_tables.shape
    width = heads * layout.head_dim
    per_row = 4 * (width if q_stride is None else q_stride)
    floats = device.asarray(np.array([scale, softcap], np.float32))
    first = k_cache[0], v_cache[0]
    arrays = (out, q, *first, block_tables, positions, seqs, rows.count, floats, scratch)
    shape = (heads, layout.kv_heads, layout.head_dim, layout.block_size, layout.blocks)
    strides = per_row, scratch.shape[1], k_cache.strides[0]
    place = (max_seqs, max_blocks, window, 4 * q_offset, *strides)
    args = (*arrays, *shape, *place, *rounding(out, codes, width))
    return [Launch(CPU[layout.kind], args), Launch(CPU_MERGE, args)]
