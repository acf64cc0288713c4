"""What a rank keeps of a model in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanocupy import models, nn
from nanocupy.checkpoint import Checkpoint, ModelConfig
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.distributed import ONE, Group
from nanocupy.models.shard import divide_heads, divide_hidden, divide_vocabulary
from ranks import Place


def weight_bytes(folder: Path, group: Group) -> int:
    """Bytes of a rank's packed weights."""
    device = CpuDevice(threads=1)
    with Checkpoint(folder) as checkpoint:
        network = models.load(checkpoint)
        network.shard(group)
        nn.prepare(network, device)
    return device.memory_active()


def share(config: ModelConfig, rank: int, ranks: int) -> float:
    """The part of all weights that belongs to a rank, by counting them."""

    def count(heads: int, kv_heads: int, hidden: int, tokens: int) -> int:
        attention = 2 * (heads + kv_heads) * config.head_dim
        layer = (attention + 3 * hidden) * config.hidden_size
        return config.num_hidden_layers * layer + tokens * config.hidden_size

    c = config
    mine = divide_heads(c.num_attention_heads, c.num_key_value_heads, ranks)[rank]
    hidden = divide_hidden(c.intermediate_size, ranks, 64)[rank]
    tokens = divide_vocabulary(c.vocab_size, ranks)[rank]
    whole = (c.num_attention_heads, c.num_key_value_heads, c.intermediate_size, c.vocab_size)
    return count(*map(len, (*mine, hidden, tokens))) / count(*whole)


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_has_its_share_and_no_more(real_model: Path, ranks: int) -> None:
    whole = weight_bytes(real_model, ONE)
    with Checkpoint(real_model) as checkpoint:
        shares = [share(checkpoint.config, rank, ranks) for rank in range(ranks)]
    assert sum(shares) == pytest.approx(1)
    for rank, part in enumerate(shares):
        assert weight_bytes(real_model, Place(rank, ranks)) <= 1.05 * part * whole
