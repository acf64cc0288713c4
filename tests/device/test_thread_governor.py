"""How many threads take part: judged by clocks that the tests turn by hand."""

from __future__ import annotations

import pytest

from device.chains import chain
from nanocupy.device.cpu import thread_pool
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.cpu.thread_governor import PAUSE, WINDOW, ThreadGovernor


class Machine:
    """A pool of `most` threads whose runs take a millisecond each.

    lost: the share of a run for which each thread has no core, the caller first.
    """

    def __init__(self, most: int) -> None:
        self.now, self.had = 0.0, [0.0] * most
        self.lost = [0.0] * most
        self.governor = ThreadGovernor(most, caller=lambda: self.had[0], now=lambda: self.now)
        for thread in range(1, most):
            self.governor.workers.append(lambda thread=thread: self.had[thread])

    def run(self, seconds: float) -> list[int]:
        """Runs for so long; how many threads took part in each."""
        took: list[int] = []
        for _ in range(round(seconds * 1000)):
            took.append(self.governor.threads)
            self.governor.start(took[-1])
            self.now += 0.001
            for thread in range(took[-1]):
                self.had[thread] += 0.001 * (1 - self.lost[thread])
            self.governor.stop()
        return took


@pytest.mark.parametrize("most", [1, 2, 8])
def test_all_threads_take_part_while_nothing_is_lost(most: int) -> None:
    machine = Machine(most)
    machine.lost = [0.01] * most
    assert set(machine.run(10)) == {most}


@pytest.mark.parametrize(("most", "victim"), [(2, 0), (2, 1), (8, 7)])
def test_a_busy_neighbour_costs_one_thread(most: int, victim: int) -> None:
    machine = Machine(most)
    machine.lost[victim] = 0.5
    took = machine.run(0.1)
    assert took[0] == most and took[-1] == most - 1


def test_what_is_lost_in_turns_counts_together() -> None:
    machine = Machine(2)
    machine.lost = [0.25, 0.25]
    assert machine.run(0.05)[-1] == 1


def test_one_thread_remains() -> None:
    machine = Machine(2)
    machine.lost = [0.9, 0.9]
    assert set(machine.run(5)) == {1, 2} and machine.governor.threads >= 1


def test_tries_become_rare_while_the_neighbour_stays() -> None:
    machine = Machine(2)
    machine.lost[1] = 0.5
    early, late = (machine.run(10).count(2) for _ in range(2))
    window = round(WINDOW * 1000)
    assert early >= 4 * window and window <= late <= 4 * window


def test_all_are_back_soon_after_the_neighbour_has_gone() -> None:
    machine = Machine(2)
    machine.lost[1] = 0.5
    machine.run(20)
    machine.lost[1] = 0.0
    machine.run(PAUSE[1] + 3 * WINDOW)
    assert set(machine.run(5)) == {2}


def test_a_pause_between_runs_is_not_a_loss() -> None:
    machine = Machine(2)
    for _ in range(200):
        machine.now += 0.5  # parked
        assert set(machine.run(0.003)) == {2}


# ---- with real threads


def test_any_number_of_threads_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    device = CpuDevice(threads=4)
    launches, first, last = chain(device, 50)
    graph, governor = device.capture(launches), thread_pool.shared_pool(4).governor
    for count in (4, 1, 3, 1, 1, 2, 4, 4, 1, 4):
        monkeypatch.setattr(governor, "threads", count)
        first[:] = count
        graph.run()
        assert (last == count + 50).all()


def test_ranks_keep_all_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread works with its like on other ranks, which would wait for it."""
    device, used = CpuDevice(threads=2), []
    graph, pool = device.capture(chain(device, 3)[0]), thread_pool.shared_pool(2)
    monkeypatch.setattr(pool.governor, "threads", 1)
    run = pool.run

    def note(table: int, rows: int, count: int) -> tuple[int, int]:
        used.append(count)
        return run(table, rows, count)

    monkeypatch.setattr(pool, "run", note)
    graph.run()
    device.all_threads = True  # as `connect` says
    graph.run()
    assert used == [1, 2]
