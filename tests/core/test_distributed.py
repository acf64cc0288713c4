"""Collectives: recorded, evaluated by NumPy, and in Programs on several ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from kernels.ranks import connected, on_ranks, shared, window
from nanocupy import nn
from nanocupy.core import distributed, fast
from nanocupy.core.recorder.program import Program
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.distributed import ONE, Group
from ranks import Place, on_threads

# ---- groups


def test_where_there_is_one_process() -> None:
    assert distributed.init() is ONE and isinstance(ONE, distributed.Group)
    assert distributed.init(backend="mpi") is ONE
    with pytest.raises(RuntimeError, match="one process: start several with mpirun"):
        distributed.init(strict=True)
    with pytest.raises(ValueError, match=r"backend='ring': expected one of \('any', 'mpi'\)"):
        distributed.init(backend="ring")
    assert distributed.is_available() == (find_spec("mpi4py") is not None)
    assert not distributed.is_available("ring")
    x = mx.arange(3)
    for collective in (distributed.all_sum, distributed.all_max, distributed.all_gather):
        assert collective(x).node is x.node
    assert distributed.gather_columns(x, [3]) is x


# ---- NumPy forms


def test_evaluated_by_numpy() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((2, 3, 4)).astype(np.float32) for _ in range(3)]

    def work(group: Group) -> list[np.ndarray]:
        x = mx.array(parts[group.rank()])
        named = (distributed.all_sum, distributed.all_max, distributed.all_gather)
        out = [function(x, group=group) for function in named]
        mx.eval(*out)
        return [a.numpy() for a in out]

    for total, largest, rows in on_threads(3, work):
        assert np.array_equal(total, parts[0] + parts[1] + parts[2])
        assert np.array_equal(largest, np.maximum.reduce(parts))
        assert np.array_equal(rows, np.concatenate(parts))


@pytest.mark.parametrize("shape", [(2, 3), (0,), (4, 0), ()])
def test_columns_of_every_width_are_gathered(shape: tuple[int, ...]) -> None:
    widths = [2, 0, 5]
    parts = [np.full((*shape, n), n, np.int32) for n in widths]

    def work(group: Group) -> np.ndarray:
        x = mx.array(parts[group.rank()])
        out = distributed.gather_columns(x, widths, group=group)
        assert out.shape == (*shape, 7)
        return out.numpy()

    for out in on_threads(3, work):
        assert np.array_equal(out, np.concatenate(parts, axis=-1))


def test_numbers_are_gathered_to_a_vector() -> None:
    def work(group: Group) -> mx.array:
        out = distributed.all_gather(mx.array(group.rank()), group=group)
        assert out.shape == (2,)
        return out.tolist()

    assert on_threads(2, work) == [[0, 1]] * 2


def test_a_width_that_is_not_the_arrays_is_refused() -> None:
    group = Place(1, 2)
    for widths in ([4, 3], [4], [4, 4, 4]):
        with pytest.raises(ValueError, match=r"x of shape \(2, 4\) and widths .* rank 1 of 2"):
            distributed.gather_columns(mx.zeros((2, 4)), widths, group=group)


# ---- Programs


CAPACITY, DIM, WIDTHS = 6, 64, (48, 32)


class Layers(nn.Module):
    """What a rank has of a model, with weights of its own."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(DIM, DIM, bias=False)
        self.head = nn.Linear(DIM, WIDTHS[rank], bias=False)
        rng = np.random.default_rng(rank)
        for layer in (self.down, self.head):
            weight = 0.1 * rng.standard_normal(layer.weight.shape)
            layer.weight = mx.array(weight.astype(np.float32))


class Model:
    """The sum of all ranks' products, then every rank's columns of a product with that."""

    def __init__(self, device: Any, group: Group, rules: Any = None) -> None:
        self.device = device
        self.rows, self.wanted = (mx.Rows(CAPACITY, device.empty((1,), np.int64)) for _ in range(2))
        self.x = device.empty((CAPACITY, DIM), np.float32)
        self.index = device.empty((CAPACITY,), np.int32)
        x = fast.static(self.x, (self.rows, 1, DIM))
        layers: Any = nn.prepare(Layers(group.rank()), device)
        total = distributed.all_sum(layers.down(x), group=group)
        columns = distributed.gather_columns(layers.head(total + x), WIDTHS, group=group)
        out = mx.take(columns, fast.static(self.index, (self.wanted,)), 0)
        self.program = Program([out], device, rules)

    def kernels(self) -> list[str]:
        return [launch.kernel.name for launch in self.program.launches()]

    def __call__(self, x: np.ndarray, index: Sequence[int]) -> np.ndarray:
        self.rows.count[0], self.wanted.count[0] = len(x), len(index)
        self.x[: len(x)], self.index[: len(index)] = x, index
        self.program.capture().run()
        out: np.ndarray = self.program.outputs[0][: len(index), 0]
        return out


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_are_taken_before_ranks_meet(threads: int) -> None:
    x = np.random.default_rng(9).standard_normal((5, DIM)).astype(np.float32)
    index, columns = [4, 0, 2], sum(WIDTHS)
    outs = shared((2, 2, len(index), columns))

    def work(device: CpuDevice, rank: int) -> None:
        take, meet = "take_rows", ["all_reduce", "gather_columns"]
        for number, (rules, order) in enumerate(((None, [take, *meet]), ((), [*meet, take]))):
            model = Model(device, Place(rank, 2), rules)
            assert [name for name in model.kernels() if name in order] == order
            outs[rank, number] = model(x, index)

    on_ranks(2, threads, work)
    assert len({out.tobytes() for out in outs.reshape(4, -1)}) == 1
    first, second = Layers(0), Layers(1)
    h = first.down(mx.array(x)) + second.down(mx.array(x)) + x
    want = np.concatenate([first.head(h).numpy(), second.head(h).numpy()], axis=1)
    np.testing.assert_allclose(outs[0, 0], want[index], rtol=1e-5, atol=1e-5)


def test_a_compiled_function_sums_over_ranks() -> None:
    def work(device: CpuDevice, rank: int) -> None:
        group = Place(rank, 2)

        @partial(mx.compile, device=device)
        def function(x: mx.array) -> tuple[mx.array, mx.array]:
            total = distributed.all_sum(x, group=group)
            return total, distributed.all_max(x * total, group=group)

        for scale in (1, -1):
            x = scale * np.arange(6, dtype=np.float32).reshape(2, 3)
            total, largest = function(x + rank)
            assert np.array_equal(total.numpy(), 2 * x + 1)
            want = np.maximum(x * total.numpy(), (x + 1) * total.numpy())
            assert np.array_equal(largest.numpy(), want)

    on_ranks(2, 2, work)


def lowered(record: Callable[[mx.array], Sequence[mx.array]], device: Any = None) -> list[Any]:
    """The launches of what is recorded of an x [4, 1, 16] f32."""
    device = device or connected(window(2, 1), 0, 2, 1)
    x = fast.static(device.empty((4, 16), np.float32), (4, 1, 16))
    return Program(record(x), device).launches()


def test_each_is_done_as_often_as_recorded_in_the_same_order() -> None:
    group = Place(0, 2)

    def record(x: mx.array) -> list[mx.array]:
        twice = [distributed.all_sum(x * x, group=group) for _ in range(2)]
        columns = distributed.gather_columns(x, [16, 4], group=group)
        largest = distributed.all_max(twice[1], group=group)
        return [largest + twice[0], columns]

    orders = {tuple(launch.kernel.name for launch in lowered(record)) for _ in range(3)}
    assert orders == {("mul", "all_reduce", "all_reduce", "all_reduce", "add", "gather_columns")}
    hows = [launch.args[-1] for launch in lowered(record) if launch.kernel.name == "all_reduce"]
    assert hows == [0, 1, 0]


def test_what_has_no_kernel_is_refused() -> None:
    group = Place(0, 2)
    total = partial(distributed.all_sum, group=group)
    with pytest.raises(ValueError, match="cpu device is part of no group"):
        lowered(lambda x: [total(x)], CpuDevice(1))
    with pytest.raises(ValueError, match="as rank 1 of 3: the device is rank 0 of 2"):
        lowered(lambda x: [distributed.all_sum(x, group=Place(1, 3))])
    with pytest.raises(NotImplementedError, match=r"all_sum. of int32"):
        lowered(lambda _: [total(mx.arange(4))])
    with pytest.raises(NotImplementedError, match=r"all_sum. of float32 \(\)"):
        lowered(lambda _: [total(mx.array(1.0))])
    with pytest.raises(NotImplementedError, match="rows with gaps"):
        lowered(lambda x: [total(x[..., :8])])
    with pytest.raises(NotImplementedError, match=r"gather_columns. to \(4, 2, 16\)"):
        lowered(lambda x: [distributed.gather_columns(x.reshape(4, 2, 8), [8, 8], group=group)])
    with pytest.raises(NotImplementedError, match=r"all_gather. has no kernel"):
        lowered(lambda x: [distributed.all_gather(x, group=group)])


def test_on_cuda_capacity_is_what_travels() -> None:
    device = SimpleNamespace(
        kind="cuda", name="cuda", empty=np.zeros, asarray=np.array, link=SimpleNamespace()
    )
    device.link.rank, device.link.ranks = 0, 2
    group = Place(0, 2)

    def record(x: mx.array) -> list[mx.array]:
        total = distributed.all_sum(x, group=group)
        half = mx.array(np.ones((4, 16), np.float16))
        columns = [distributed.gather_columns(a, [16, 4], group=group) for a in (total, x)]
        return [*columns, distributed.all_max(half, group=group)]

    first, second, third, fourth = lowered(record, device)
    assert first.args[2:] == (4 * 16, "sum") and fourth.args[2:] == (4 * 16, "max")
    assert fourth.args[0].dtype == fourth.args[1].dtype == np.float16
    assert second.args[3:] == third.args[3:] == (4, (16, 4))
    assert second.args[2].size == 4 * 20 and second.args[2] is third.args[2]
    assert all(type(n) is int for n in (first.args[2], second.args[3]))
