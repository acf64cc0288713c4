"""Attention over a paged cache that `rope_write` fills.

    out[row] = sum over t of softmax(scale * q[row] . K[t]) V[t],  t in 0 .. position[row]

q, out [rows, heads, head_dim]. Position p of a sequence is in block `table[p // block_size]` at
place p % block_size. Query head h reads KV head h // (heads / kv_heads). With a window w only the
last w tokens count; with a softcap c a score s becomes c * tanh(s / c).

`cpu.py` and `cuda.py` say how a cache lies in memory, and in which order sums are added: a row's
result depends on its own tokens, and on CUDA on the capacity of the launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Rows
from nanocupy.dtypes import KINDS, float32
from nanocupy.kernels import launches_of


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
    activations: Any = float32

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
        if np.dtype(self.dtype) not in self._kernels.CACHE_DTYPES:
            raise ValueError(
                f"[paged_attention] cache of {np.dtype(self.dtype)}: expected float32, float16, "
                "bfloat16, or on a CPU int8"
            )

    @property
    def kind(self) -> str:
        """What kernels call the dtype."""
        return KINDS[np.dtype(self.dtype)]

    @property
    def nbytes(self) -> int:
        """Bytes of K and V together."""
        tokens = self.blocks * self.kv_heads * self.block_size
        return 2 * tokens * token_bytes(self.head_dim, self.dtype)

    @property
    def prefill_tile(self) -> int:
        """Rows of a sequence that attend together; 0 where each row attends by itself."""
        return int(self._kernels.prefill_tile(self))

    def empty(self, device: Device, layers: int = 1) -> list[tuple[DeviceArray, DeviceArray]]:
        """(K, V) of each layer, zeroed."""
        made: list[tuple[DeviceArray, DeviceArray]]
        made = self._kernels.empty_cache(self, device, layers)
        return made

    def rounds_rows(self, group: int) -> bool:
        """Whether attention can round its result, in groups of values, as it writes it."""
        return bool(self._kernels.rounds_rows(self, group))

    @property
    def _kernels(self) -> Any:
        return launches_of(self.device).attention


def token_bytes(head_dim: int, dtype: Any) -> int:
    """Bytes of a token's K, or V, of one head; in 8 bits with its scale."""
    dtype = np.dtype(dtype)
    return head_dim * dtype.itemsize + (4 if dtype.itemsize == 1 else 0)


class RowSplit(NamedTuple):
    """The split of a step's rows on CUDA: each is a decode row or in a prefill tile.

    Attributes:
        decode_rows: int32 [capacity], rows that attend by themselves. A static buffer.
        decode_count: the number of decode rows.
        prefill_tiles: int32 [capacity, 4], neighbours in a sequence that attend together: (first
            row, rows, sequence, 0). A static buffer.
        tile_count: the number of tiles.
    """

    decode_rows: DeviceArray
    decode_count: Rows
    prefill_tiles: DeviceArray
    tile_count: Rows


class StepRows(NamedTuple):
    """Where the rows of a step stand.

    Attributes:
        rows: the number of rows.
        positions: int32 [rows], of each row's token in its sequence.
        sequences: int32 [rows], each row's line of `block_tables`.
        block_tables: int32 [sequences, blocks].
        split: decode rows and prefill tiles, where each has a kernel of its own.
    """

    rows: Rows
    positions: DeviceArray
    sequences: DeviceArray
    block_tables: DeviceArray
    split: RowSplit | None = None


def group_of(layout: KVLayout, heads: int) -> int:
    """The number of query heads that share a KV head. Raises ValueError if it is no whole one."""
    if heads % layout.kv_heads:
        raise ValueError(
            f"[paged_attention] {heads} heads on {layout.kv_heads} KV heads: expected a multiple"
        )
    return heads // layout.kv_heads


def reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, window: int = 0, softcap: float = 0.0
) -> np.ndarray:
    """One row: q [heads, head_dim]; k, v [length, kv_heads, head_dim] up to the row's position.

    Summed in f64 in one go; a kernel's chunks change roundings, not the value.
    """
    start = max(0, len(k) - window) if window else 0
    group = q.shape[0] // k.shape[1]
    k, v = (np.repeat(t[start:].astype(np.float64), group, axis=1) for t in (k, v))
    scores = np.einsum("hd,thd->ht", (q * np.float32(scale)).astype(np.float64), k)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    p = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(np.einsum("ht,thd->hd", p / p.sum(1, keepdims=True), v), np.float32)
