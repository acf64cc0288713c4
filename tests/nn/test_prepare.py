"""Packing a whole model."""

from __future__ import annotations

import numpy as np

from nanocupy import nn
from nanocupy.core import array
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.nn.layers import Weighted
from nanocupy.utils import tree_flatten, tree_map


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 80), nn.Linear(64, 128, bias=False)
        self.norm = nn.RMSNorm(64)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 64)
        self.blocks = [Block() for _ in range(20)]


def made() -> Model:
    source, model = np.random.default_rng(0), Model()
    drawn = tree_map(lambda a: array(source.random(a.shape, np.float32)), model.parameters())
    model.update(drawn)
    return model


def test_threads_pack_what_one_thread_packs() -> None:
    one, four = (nn.prepare(made(), CpuDevice(threads=n)) for n in (1, 4))
    layers = list(zip(one.modules(), four.modules(), strict=True))
    packed = [(a.packed, b.packed) for a, b in layers if isinstance(a, Weighted)]
    assert len(packed) == 41
    assert all(a.start == b.start and np.array_equal(a.data, b.data) for a, b in packed)
    assert [n for n, _ in tree_flatten(one.parameters())] == [
        n for n, _ in tree_flatten(four.parameters())
    ]


def test_every_buffer_is_told() -> None:
    told: list[tuple[int, int]] = []
    nn.prepare(made(), CpuDevice(threads=3), tick=lambda *at: told.append(at))
    assert told == [(done, 21) for done in range(1, 22)]
