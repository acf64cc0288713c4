"""A rank that is killed, raises or stalls: over everywhere within seconds, and nothing stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mpirun import PROGRAMS, Ended, mpirun, needs_mpi, start

pytestmark = needs_mpi
SECONDS = 10
STALL = 1.5  # what the program sets


def processes(mark: str) -> list[int]:
    """Processes whose command line has the mark in it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended since
    return found


@pytest.fixture
def shm(tmp_path: Path) -> dict[str, str]:
    """Where Open MPI keeps shared memory: a folder that no other job uses."""
    folder = tmp_path / "shm"
    folder.mkdir()
    names = ("btl_sm_backing_directory", "osc_sm_backing_directory")
    return {f"OMPI_MCA_{name}": str(folder) for name in names}


def model_of(tiny: Path, tmp_path: Path) -> Path:
    """The model by a name of its own, to find a job's processes by."""
    mark = tmp_path / "model"
    mark.symlink_to(tiny)
    return mark


@pytest.fixture
def fails(tiny: Path, tmp_path: Path, shm: dict[str, str]) -> Callable[..., Ended]:
    """A job in which a rank fails; no process and no file of it is left."""
    mark = model_of(tiny, tmp_path)

    def run(rank: int, what: str, when: str) -> Ended:
        ended = mpirun(2, str(PROGRAMS / "fails.py"), str(mark), str(rank), what, when, **shm)
        assert processes(str(mark)) == [] and os.listdir(tmp_path / "shm") == []
        assert ended.code != 0
        return ended

    return run


WHEN = ["load", "idle", "prefill", "inside", "decode", "shutdown"]


@pytest.mark.parametrize("when", WHEN)
def test_a_rank_is_killed(fails: Callable[..., Ended], when: str) -> None:
    ended = fails(1, "kill", when)
    assert "rank 1" in ended.err and "signal 9" in ended.err
    assert ended.seconds < SECONDS


@pytest.mark.parametrize("when", ["load", "prefill", "decode", "shutdown"])
def test_a_rank_raises(fails: Callable[..., Ended], when: str) -> None:
    """The caller, on rank 0, gets an exception that names the rank and what it said."""
    ended = fails(1, "raise", when)
    assert ended.out.startswith("caught RankError: rank 1: MemoryError: sown fault"), ended
    assert ended.seconds < SECONDS


def seconds_to_find(ended: Ended) -> float:
    """From when a rank stopped to when rank 0's caller heard of it."""
    at = dict(re.findall(r"(stop|found) at ([\d.]+)", ended.err))
    return float(at["found"]) - float(at["stop"])


@pytest.mark.parametrize("when", ["idle", "prefill", "inside", "decode", "shutdown"])
def test_a_rank_stalls(fails: Callable[..., Ended], when: str) -> None:
    ended = fails(1, "stop", when)
    assert ended.out.startswith("caught RankError: rank 1 has said nothing for 1.5 s"), ended
    assert ended.seconds < SECONDS and seconds_to_find(ended) < 2 * STALL


@pytest.mark.parametrize("when", ["joined", "load", "capture"])
def test_a_rank_stalls_before_there_is_an_engine(fails: Callable[..., Ended], when: str) -> None:
    """There a rank may be busy for a while, and speak late; twice as long is too late."""
    ended = fails(1, "stop", when)
    assert ended.out.startswith("caught RankError: rank 1 has said nothing for 2.5 s"), ended
    assert seconds_to_find(ended) < 2 * STALL


def test_a_rank_stalls_while_mpi_waits_for_it(fails: Callable[..., Ended]) -> None:
    """Nobody can interrupt that: the job ends, and says why."""
    ended = fails(1, "stop", "window")
    assert "the job ends: rank 1 has said nothing for 2.5 s" in ended.err and not ended.out
    assert ended.seconds < SECONDS


def test_a_rank_stalls_at_its_exit(fails: Callable[..., Ended]) -> None:
    """The caller has its answers; the program ends, and does not wait for ever."""
    ended = fails(1, "stop", "exit")
    assert "the job ends: rank 1 has said nothing for 1.5 s" in ended.err and not ended.out
    assert ended.seconds < SECONDS


def test_rank_0_raises(fails: Callable[..., Ended]) -> None:
    """Once a step is sent, a fault of its own is told with its own name."""
    ended = fails(0, "raise", "decode")
    assert ended.out.startswith("caught RankError: rank 0: MemoryError: sown fault"), ended


def test_rank_0_stalls(fails: Callable[..., Ended]) -> None:
    """There is no caller to tell: the other rank ends the job."""
    ended = fails(0, "stop", "decode")
    assert "rank 0 has said nothing" in ended.err and ended.seconds < SECONDS


def test_rank_0_is_killed(fails: Callable[..., Ended]) -> None:
    ended = fails(0, "kill", "decode")
    assert "rank 0" in ended.err and ended.seconds < SECONDS


def test_a_job_that_was_stopped_goes_on(tiny: Path) -> None:
    """Ctrl-Z, or a machine that was paused, for longer than a rank may stall: nobody is blamed."""
    ended = mpirun(2, str(PROGRAMS / "fails.py"), str(tiny), "all", "pause", "decode")
    assert (ended.code, ended.out) == (0, ""), ended.err


def test_a_fault_in_a_rank_of_ones_own(tiny: Path) -> None:
    """With comm=, every rank gets an error, and is free again."""
    ended = mpirun(2, str(PROGRAMS / "own_fault.py"), str(tiny))
    assert ended.code == 0, ended.err
    assert sorted(ended.out.splitlines()) == [
        "0 RankError: rank 1: MemoryError: sown fault",
        "1 MemoryError: sown fault",
    ]


def test_the_launcher_is_killed(tiny: Path, tmp_path: Path, shm: dict[str, str]) -> None:
    """No rank lives on, and no memory of theirs."""
    mark, folder = model_of(tiny, tmp_path), tmp_path / "shm"
    job = start(2, str(PROGRAMS / "fails.py"), str(mark), "-1", "-", "serve", **shm)
    deadline = time.monotonic() + 60
    while len(os.listdir(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    assert len(processes(str(mark))) == 3  # two ranks and the launcher
    job.kill()
    killed = time.monotonic()
    try:
        job.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail("the pipes of the ranks are open still")
    while processes(str(mark)) and time.monotonic() < killed + SECONDS:
        time.sleep(0.1)
    assert processes(str(mark)) == [] and os.listdir(folder) == []


def test_what_a_killed_job_leaves_is_cleared_by_the_next(
    tiny: Path, tmp_path: Path, shm: dict[str, str]
) -> None:
    """Where ranks and launcher are killed at once, nobody can clean up."""
    mark, folder = model_of(tiny, tmp_path), tmp_path / "shm"
    job = start(2, str(PROGRAMS / "fails.py"), str(mark), "-1", "-", "serve", **shm)
    deadline = time.monotonic() + 60
    while len(os.listdir(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    for pid in processes(str(mark)):
        os.kill(pid, signal.SIGKILL)
    job.communicate(timeout=SECONDS)
    assert len(os.listdir(folder)) == 2
    code = "from nanocupy.distributed import world; world().barrier()"
    assert mpirun(2, "-c", code, **shm).code == 0
    assert os.listdir(folder) == []
