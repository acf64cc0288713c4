"""The size of an engine's KV cache: from options, the model, and the memory that is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from nanocupy.device.cpu import host_memory
from nanocupy.distributed import ONE, Group
from nanocupy.dtypes import NAMED
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.precision import Precision
from nanocupy.kernels.attention import token_bytes

SHARE = 0.25  # of free memory, where nobody says how much KV blocks may take


@dataclass(frozen=True)
class KVCacheConfig:
    """The KV cache of one rank. `num_blocks` counts the dump block."""

    num_blocks: int
    block_size: int
    max_model_len: int
    layers: int
    kv_heads: int
    head_dim: int
    dtype: str
    device: str = "cpu"
    activations: str = "float32"

    @property
    def layout(self) -> Any:
        """The memory layout of a layer's pages."""
        from nanocupy.kernels.attention import KVLayout

        shape = (self.num_blocks, self.kv_heads, self.head_dim, self.block_size)
        dtypes = NAMED[self.dtype], NAMED[self.activations]
        return KVLayout(*shape, dtypes[0], self.device, dtypes[1])

    @property
    def bytes_per_token(self) -> int:
        return bytes_per_token(self.layers, self.kv_heads, self.head_dim, self.dtype)

    @property
    def nbytes(self) -> int:
        return self.num_blocks * self.block_size * self.bytes_per_token


def bytes_per_token(layers: int, kv_heads: int, head_dim: int, dtype: str) -> int:
    """Bytes of keys and values that one token takes in all layers."""
    return 2 * layers * kv_heads * token_bytes(head_dim, NAMED[dtype])


class Room(NamedTuple):
    """Memory for KV blocks: the default budget, and the total, in bytes."""

    budget: int
    total: int


def cpu_room(processes: int = 1) -> Room:
    """The memory for one of several processes on this machine: a share of what is free."""
    return Room(int(SHARE * host_memory.available()) // processes, host_memory.total() // processes)


def _kv_heads(config: Any, group: Group) -> int:
    """This rank's KV heads."""
    if group.size() == 1:
        return int(config.num_key_value_heads)
    from nanocupy.models.shard import kv_heads_of

    return kv_heads_of(config, group)


def kv_cache_config(
    config: Any,
    options: EngineOptions,
    numbers: Precision,
    room: Room | None = None,
    device: str = "cpu",
    group: Group = ONE,
) -> KVCacheConfig:
    """Return the KV cache of a model, or of a rank's part of it.

    Args:
        room: how much memory there is; `cpu_room` if None.
        device: the kind of device.
        group: of the ranks that share the model's KV heads.

    Raises:
        ValueError: an explicit `max_model_len` that the KV memory or the model cannot hold, more
            KV memory than there is, or heads that the ranks cannot share.
    """
    room = room or cpu_room()
    shape = (config.num_hidden_layers, _kv_heads(config, group), config.head_dim)
    dtype, size = numbers.kv, options.block_size
    longest = longest_sequence(config, options)
    per_block = size * bytes_per_token(*shape, dtype)
    full = -(-longest // size)
    if options.num_kv_blocks is not None:
        blocks = options.num_kv_blocks
    else:
        budget = room.budget if options.kv_memory is None else options.kv_memory
        blocks = max(0, min(options.max_num_seqs * full, budget // per_block))
    or_share = " or --gpu-memory-utilization" if device == "cuda" else ""
    if blocks < full and options.max_model_len is not None:
        raise ValueError(
            f"max_model_len={longest} needs {full} KV blocks of {size} tokens "
            f"({full * per_block:,} bytes), and there is room for {blocks} ({blocks * per_block:,} "
            f"bytes): lower --max-model-len, or raise --kv-memory or --num-kv-blocks{or_share}"
        )
    if blocks * per_block > room.total:
        raise ValueError(
            f"{blocks:,} KV blocks take {blocks * per_block:,} bytes, and there are "
            f"{room.total:,} in all: lower --num-kv-blocks or --kv-memory"
        )
    if blocks < 1:
        raise ValueError(
            f"no room for one KV block of {per_block:,} bytes: raise --kv-memory{or_share}"
        )
    longest = min(longest, blocks * size)
    return KVCacheConfig(blocks + 1, size, longest, *shape, dtype, device, numbers.activations)


def longest_sequence(config: Any, options: EngineOptions) -> int:
    """Return the length of the longest sequence, prompt and answer, in tokens.

    It goes by the options and the model alone: what depends on it must not change from one machine
    to the next.

    Raises:
        ValueError: `max_model_len` is more than the model was made for.
    """
    longest = int(options.max_model_len or config.usual_length)
    if longest > config.max_position_embeddings:
        raise ValueError(
            f"max_model_len={longest}: the model was made for {config.max_position_embeddings} "
            "positions at most; lower --max-model-len"
        )
    return longest
