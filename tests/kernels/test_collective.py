"""all_reduce and gather_columns, between processes that share memory."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.ranks import connected, on_ranks, shared, window
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.cpu.link import SLOT
from nanocupy.device.protocols import KernelError, Rows, fixed_rows
from nanocupy.kernels import collective
from nanocupy.kernels.collective import cpu, cuda
from nanocupy.kernels.kernel import ALL_REDUCE, GATHER_COLUMNS

SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 3e38, -3e38, 1e-40], np.float32)


def parts_of(rows: int, widths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """An x for every rank, with a few values that are not everyday ones."""
    rng = np.random.default_rng(seed)

    def one(width: int) -> np.ndarray:
        x = rng.standard_normal((rows, width)).astype(np.float32)
        return np.where(rng.random(x.shape) < 0.1, rng.choice(SPECIAL, x.shape), x)

    return [one(width) for width in widths]


def reduced(parts: list[np.ndarray], threads: int, how: str, in_place: bool = False) -> np.ndarray:
    """What every rank has afterwards; one row more than there is work for."""
    rows, width = parts[0].shape
    outs = shared((len(parts), rows + 1, width))

    def work(device: CpuDevice, rank: int) -> None:
        out = device.asarray(np.full((rows + 1, width), 7, np.float32))
        x = out if in_place else device.empty((rows, width), np.float32)
        x[:rows] = parts[rank]
        count = fixed_rows(device, rows)
        device.capture([cpu.launch_all_reduce(device, out, x, count, width, how)]).run()
        outs[rank] = out

    on_ranks(len(parts), threads, work)
    return outs


def gathered(parts: list[np.ndarray], threads: int) -> np.ndarray:
    rows, widths = len(parts[0]), [part.shape[1] for part in parts]
    outs = shared((len(parts), rows + 1, sum(widths)))

    def work(device: CpuDevice, rank: int) -> None:
        out, x = device.asarray(np.full_like(outs[rank], 7)), device.asarray(parts[rank])
        count = fixed_rows(device, rows)
        device.capture([cpu.launch_gather_columns(device, out, x, count, widths, None)]).run()
        outs[rank] = out

    on_ranks(len(parts), threads, work)
    return outs


def check(outs: np.ndarray, want: np.ndarray) -> None:
    """All ranks have the same to the bit, it is what NumPy says, and no row more was written."""
    assert len({out.tobytes() for out in outs}) == 1
    np.testing.assert_array_equal(outs[0, :-1], want)
    assert (outs[0, -1] == 7).all()


@settings(max_examples=25, deadline=None)
@given(
    ranks=st.integers(1, 4),
    threads=st.integers(1, 2),
    rows=st.integers(0, 5),
    width=st.integers(1, 100),
    how=st.sampled_from(collective.HOW),
    in_place=st.booleans(),
)
def test_all_reduce_agrees_with_numpy(
    ranks: int, threads: int, rows: int, width: int, how: str, in_place: bool
) -> None:
    parts = parts_of(rows, [width] * ranks)
    with np.errstate(all="ignore"):
        want = collective.all_reduce_reference(parts, how)
    check(reduced(parts, threads, how, in_place), want)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(0, 70), min_size=1, max_size=4),
    threads=st.integers(1, 2),
    rows=st.integers(0, 5),
)
def test_gather_columns_agrees_with_numpy(widths: list[int], threads: int, rows: int) -> None:
    parts = parts_of(rows, widths)
    check(gathered(parts, threads), collective.gather_columns_reference(parts))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("elements", [-1, 0, 1, 500_003])
def test_what_does_not_fit_into_a_slot_goes_in_pieces(threads: int, elements: int) -> None:
    whole = SLOT // 4 + elements
    sums = parts_of(1, [whole] * 2)
    with np.errstate(all="ignore"):
        check(reduced(sums, threads, "sum"), collective.all_reduce_reference(sums))
    columns = parts_of(3, [whole // 3 + 1, 5])  # one rank has little, in as many pieces
    check(gathered(columns, threads), collective.gather_columns_reference(columns))


@pytest.mark.parametrize(("ranks", "threads"), [(2, 1), (2, 2), (3, 1)])
def test_epochs_go_on_from_run_to_run(ranks: int, threads: int) -> None:
    """Numbers of rows change, none among them; ranks come late, now this one, now that."""
    most, width, runs = 5, 40, 60
    memory = window(ranks, threads)

    def work(device: CpuDevice, rank: int) -> None:
        late, same = random.Random(rank), random.Random(0)
        rows = Rows(most, device.empty((1,), np.int64))
        x, total = (device.empty((most, width), np.float32) for _ in range(2))
        out = device.empty((most, ranks * width), np.float32)
        graph = device.capture(
            [
                cpu.launch_all_reduce(device, total, x, rows, width),
                cpu.launch_gather_columns(device, out, total, rows, [width] * ranks, None),
                cpu.launch_all_reduce(device, x, total, rows, width, "max"),
            ]
        )
        for run in range(runs):
            count = rows.count[0] = same.randint(0, most)
            x[:], total[:], out[:] = 100 * run + rank, -1, -1
            time.sleep(late.choice((0, 0, 0.0001, 0.002)))
            graph.run()
            want = 100 * run * ranks + ranks * (ranks - 1) // 2
            for array in (x, total, out):
                assert (array[:count] == want).all(), run
            assert (total[count:] == -1).all() and (out[count:] == -1).all()

    on_ranks(ranks, threads, work, memory)
    flags = memory[: 64 * ranks * threads].view(np.int64)[::8]
    assert flags[0] > runs and len(set(flags.tolist())) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_nobody_runs_ahead(threads: int) -> None:
    """Each sum doubles the one before: reading a slot too early or too late would show."""

    def work(device: CpuDevice, rank: int) -> None:
        x = device.empty((1, 576), np.float32)
        count = fixed_rows(device, 1)
        graph = device.capture(
            [cpu.launch_all_reduce(device, x, x, count, 576) for _ in range(100)]
        )
        for run in range(50):
            x[:] = (run + 1 + rank) * np.arange(576)
            graph.run()
            assert (x == (2.0 * run + 3) * np.arange(576) * 2.0**99).all(), run

    on_ranks(2, threads, work)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", ["all_reduce", "gather_columns"])
def test_a_wait_ends_when_it_is_interrupted(name: str, threads: int) -> None:
    """Nobody is at the other end; and once given up, nothing waits again."""
    device = connected(window(2, threads), 0, 2, threads)
    x, out = (device.empty((1, width), np.float32) for width in (64, 128))
    count = fixed_rows(device, 1)
    launch = (
        cpu.launch_all_reduce(device, x, x, count, 64)
        if name == "all_reduce"
        else cpu.launch_gather_columns(device, out, x, count, [64, 64], None)
    )
    graph = device.capture([launch, launch])
    errors: list[KernelError] = []

    def run() -> None:
        try:
            graph.run()
        except KernelError as error:
            errors.append(error)

    waiting = threading.Thread(target=run)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    device.interrupt()
    waiting.join(1)
    assert not waiting.is_alive() and len(errors) == 1
    assert f"[{name}] kernel 0 of the graph failed with code 9" in str(errors[0])
    begun = time.monotonic()
    run()
    assert len(errors) == 2 and time.monotonic() - begun < 1


def test_who_has_given_up_does_not_go_on_when_others_come() -> None:
    memory = window(2, 1)
    device = connected(memory, 0, 2, 1)
    memory[64 : 2 * 64].view(np.int64)[0] = 1_000  # rank 1 is far ahead
    x = device.empty((1, 64), np.float32)
    graph = device.capture([cpu.launch_all_reduce(device, x, x, fixed_rows(device, 1), 64)])
    graph.run()
    device.interrupt()
    with pytest.raises(KernelError, match="code 9"):
        graph.run()


def test_a_device_alone_is_not_interrupted() -> None:
    device = CpuDevice(1)
    device.interrupt()
    assert device.link is None


def test_what_cannot_be_launched_is_refused() -> None:
    device, x = CpuDevice(2), np.zeros((1, 64), np.float32)
    rows = fixed_rows(device, 1)
    with pytest.raises(ValueError, match="cpu device is part of no group"):
        cpu.launch_all_reduce(device, x, x, rows, 64)
    device = connected(window(2, 1), 0, 2, 2)
    with pytest.raises(ValueError, match="2 ranks with 2 threads each need 4194560"):
        cpu.launch_all_reduce(device, x, x, rows, 64)
    with pytest.raises(ValueError, match="how='min': expected one of"):
        cpu.launch_all_reduce(device, x, x, rows, 64, "min")
    with pytest.raises(ValueError, match=r"widths \(64,\) for 2 ranks"):
        cpu.launch_gather_columns(device, x, x, rows, [64], None)


def test_on_cuda_they_are_launches_of_a_library() -> None:
    device = SimpleNamespace(kind="cuda", name="cuda", link=SimpleNamespace(rank=0, ranks=2))
    x, out, scratch = (np.zeros(n, np.float32) for n in (12, 40, 40))
    rows = Rows(4, None)
    launch = cuda.launch_all_reduce(device, out, x, rows, 3, "max")
    assert launch.kernel is ALL_REDUCE and launch.args == (x, out, 12, "max")
    launch = cuda.launch_gather_columns(device, out, x, rows, [3, 7], scratch)
    assert launch.kernel is GATHER_COLUMNS and launch.args == (x, out, scratch, 4, (3, 7))
    assert type(launch.args[3]) is int
