"""Packing a whole model."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

from nanocupy import nn
from nanocupy.core import array
from nanocupy.core.maths import quantized
from nanocupy.core.recorder.graph import CONSTANT
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


def test_codes_are_made_where_they_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the threads of the pool, two at once, and never more of them than there are threads: not
    all, one after another, to see which may share a buffer."""
    rows, both = quantized.quantize_rows, threading.Barrier(2)
    threads: set[int] = set()
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def watched(w: np.ndarray, group_size: int, bits: int) -> tuple[np.ndarray, ...]:
        nonlocal most
        if len(threads) < 2:
            threads.add(threading.get_ident())
            both.wait(10)
        made = rows(w, group_size, bits)
        alive.append(weakref.ref(made[0]))
        most = max(most, sum(ref() is not None for ref in alive))
        return made

    monkeypatch.setattr(quantized, "quantize_rows", watched)
    model = made()
    nn.quantize(model, 64, 4)
    nn.prepare(model, CpuDevice(threads=2))
    assert threading.get_ident() not in threads and len(threads) == 2
    assert len(alive) == 41 and most <= 8


def test_what_may_share_a_buffer_computes_no_weight() -> None:
    model = made()
    nn.quantize(model, 32, 8)
    layers = [layer for layer in model.modules() if isinstance(layer, Weighted)]
    assert {layer.buffer_key() for layer in layers} == {(8, 32, "float32", "float32", 16)}
    assert all(layer.weight.node.op is not CONSTANT for layer in layers)
