"""Programs: what is recorded, what the rules change (nothing, to the bit), where values lie."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nanocupy.core as mx
from nanocupy import nn
from nanocupy.core import fast
from nanocupy.core.recorder import rules
from nanocupy.core.recorder.program import Pool, Program
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.utils import tree_flatten


class Block(nn.Module):
    """What a transformer has besides attention: enough for every rule to have something to do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(90, 64)
        self.norm, self.last = nn.RMSNorm(64), nn.RMSNorm(64)
        self.q, self.k, self.v = (nn.Linear(64, n, bias=False) for n in (128, 64, 64))
        self.gate, self.up = nn.Linear(64, 128, bias=False), nn.Linear(64, 128, bias=False)
        self.down = nn.Linear(128, 64, bias=True)

    def __call__(self, tokens: mx.array) -> mx.array:
        h = self.embed(tokens)
        x = self.norm(h)
        h = h + self.k(x) * self.v(x)
        h = h + self.down(nn.silu(self.gate(x)) * self.up(x)) + self.down(self.q(x))
        return self.embed.as_linear(self.last(h))


def block(device: CpuDevice | None, seed: int = 0) -> Block:
    model, rng = Block(), np.random.default_rng(seed)
    weights = [
        (name, mx.array((0.3 * rng.standard_normal(a.shape)).astype(np.float32)))
        for name, a in tree_flatten(model.parameters())
    ]
    model.load_weights(weights)
    return model if device is None else nn.prepare(model, device)  # type: ignore[return-value]


class Case:
    """The block's logits for some rows, as a Program with symbolic numbers of rows."""

    def __init__(self, chosen: Any, capacity: int = 12) -> None:
        self.device = CpuDevice(threads=2)
        self.rows = mx.Rows(capacity, self.device.empty((1,), np.int64))
        self.wanted = mx.Rows(capacity, self.device.empty((1,), np.int64))
        self.tokens = self.device.empty((capacity,), np.int32)
        self.index = self.device.empty((capacity,), np.int32)
        model = block(self.device)
        logits = model(fast.static(self.tokens, (self.rows, 1)))
        out = mx.take(logits, fast.static(self.index, (self.wanted,)), 0)
        self.program = Program([out], self.device, chosen)

    def __call__(self, tokens: list[int], index: list[int]) -> np.ndarray:
        self.rows.count[0], self.wanted.count[0] = len(tokens), len(index)
        self.tokens[: len(tokens)], self.index[: len(index)] = tokens, index
        self.program.capture().run()
        return self.program.outputs[0][: len(index)].copy()

    def kernels(self) -> Counter[str]:
        return Counter(launch.kernel.name for launch in self.program.launches())


TOKENS, INDEX = [5, 89, 0, 17, 17, 3, 44], [6, 0, 3]


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return Case(())(TOKENS, INDEX)


def test_a_program_agrees_with_numpy(plain: np.ndarray) -> None:
    model = block(None)
    want = model(mx.array(np.array(TOKENS, np.int32)[:, None])).numpy()[INDEX]
    np.testing.assert_allclose(plain, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda r: r.__name__)
def test_no_rule_changes_a_bit(rule: Any, plain: np.ndarray) -> None:
    assert np.array_equal(Case((rule,))(TOKENS, INDEX), plain)


def test_all_rules_together_change_nothing_but_the_launches(plain: np.ndarray) -> None:
    case = Case(rules.RULES)
    assert np.array_equal(case(TOKENS, INDEX), plain)
    before, after = Case(()).kernels(), case.kernels()
    assert after["silu_mul"] == 1 and after["silu"] == 0
    assert after["add_rms_norm"] == 1
    assert before["dense_f32_f32"] == 8 and after["dense_f32_f32"] == 4
    assert after.total() < before.total()


def test_rows_are_gathered_before_the_work_on_them() -> None:
    case = Case((rules.gather_rows_first,))
    assert [x.kernel.name for x in case.program.launches()][:2] == ["take_rows", "embedding"]


def test_one_program_serves_any_number_of_rows() -> None:
    case = Case(rules.RULES)
    alone = {t: case([t], [0])[0] for t in {*TOKENS}}
    for count in range(1, len(TOKENS) + 1):
        got = case(TOKENS[:count], list(range(count)))
        assert all(np.array_equal(got[i], alone[t]) for i, t in enumerate(TOKENS[:count]))
    assert case(TOKENS, []).shape[0] == 0


def test_what_cannot_be_lowered_is_named() -> None:
    device = CpuDevice(threads=1)
    x = fast.static(device.empty((4, 16), np.float32))
    with pytest.raises(NotImplementedError, match="softmax"):
        Program([mx.softmax(x)], device)
    with pytest.raises(NotImplementedError, match="transpose"):
        Program([mx.add(x.reshape(4, 4, 4).transpose(0, 2, 1), x.reshape(4, 4, 4))], device)
    with pytest.raises(NotImplementedError, match="f32 to i32"):
        Program([x.astype(mx.int32)], device)


def test_pages_refuse_what_they_were_not_made_for() -> None:
    device = CpuDevice(threads=1)
    layout = fast.KVLayout(5, 2, 16, 16, np.float32)
    rows = [fast.static(device.empty((4,), np.int32)) for _ in range(3)]
    meta = fast.PagedMeta(*rows, block_tables=device.empty((1, 4), np.int32))
    cache = fast.PagedCache(layout, *layout.empty(device)[0], meta)

    def attend(heads: int, kv_heads: int, length: int, head_dim: int) -> mx.array:
        q, k = (mx.zeros((4, n, length, head_dim)) for n in (heads, kv_heads))
        return fast.scaled_dot_product_attention(q, *cache.update_and_fetch(k, k), scale=1.0)

    assert attend(4, 2, 1, 16).shape == (4, 4, 1, 16)
    for wrong in ((4, 4, 1, 16), (3, 2, 1, 16), (4, 2, 2, 16), (4, 2, 1, 32)):
        with pytest.raises(ValueError, match="2 heads of 16"):
            attend(*wrong)
    assert cache.make_mask(1) is cache.make_mask(1, return_array=True, window_size=64) is None
    assert cache.make_mask(1, window_size=63) == (63,)
    with pytest.raises(NotImplementedError, match="a mask"):
        k = cache.update_and_fetch(mx.zeros((4, 2, 1, 16)), mx.zeros((4, 2, 1, 16)))
        fast.scaled_dot_product_attention(mx.zeros((4, 2, 1, 16)), *k, scale=1.0, mask="causal")


def test_compile_replays_and_is_keyed_by_shape() -> None:
    device = CpuDevice(threads=2)
    calls = []

    def function(a: mx.array, b: mx.array) -> mx.array:
        calls.append(a.shape)
        return (a + b) * a

    compiled = mx.compile(function, device=device)
    for rows in (3, 5, 3, 3):
        a, b = np.random.default_rng(rows).standard_normal((2, rows, 20)).astype(np.float32)
        assert np.array_equal(compiled(a, b).numpy(), (a + b) * a)
    assert calls == [(3, 20), (5, 20)]


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 9)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_values_alive_together_never_share_memory(work: list[tuple[int, int]]) -> None:
    """Each value is taken, lives for some steps and is given back."""
    pool, alive = Pool(), []
    for time, (nbytes, life) in enumerate(work):
        piece = pool.take(nbytes)
        assert piece[0] % 64 == 0 and piece[1] >= nbytes and sum(piece) <= pool.size
        for (start, length), _ in alive:
            assert piece[0] >= start + length or start >= sum(piece)
        alive.append((piece, time + life))
        for gone in [a for a in alive if a[1] <= time]:
            alive.remove(gone)
            pool.give(*gone[0])
    for piece, _ in alive:
        pool.give(*piece)
    assert pool.size == 0 or pool._free == [(0, pool.size)]
