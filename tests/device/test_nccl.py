"""Collectives of several GPUs: by processes under mpirun, and by threads, which need no MPI.

The device's own code runs on the stand-in for NCCL; test_cupy_contract.py holds that to CuPy's.
"""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from device.needs import needs_compiler
from mpirun import mpirun, needs_mpi
from nanocupy.device.cuda import nccl, toolkit
from nanocupy.device.cuda.device import CudaDevice
from nanocupy.device.emulated import EmulatedDevice, mesh
from nanocupy.device.emulated import device as emulated
from nanocupy.device.emulated.gpu import Gpu
from nanocupy.device.emulated.nccl import ERRORS, Nccl, NcclError
from nanocupy.device.protocols import KernelError, Launch
from nanocupy.distributed import ONE, Group, RankError
from nanocupy.kernels.kernel import ALL_REDUCE, GATHER_COLUMNS

pytestmark = needs_compiler
PROGRAM = str(Path(__file__).with_name("nccl_ranks.py"))


# ---- processes


@needs_mpi
@pytest.mark.parametrize("late", ["at once", "late"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_processes(ranks: int, late: str) -> None:
    """Every dtype, eager and captured, to the bit; see nccl_ranks.py."""
    ended = mpirun(ranks, PROGRAM, "results", late)
    assert ended.code == 0, ended.err
    assert sorted(ended.out.split("\n")) == ["", *(f"{rank} well" for rank in range(ranks))]


FAILURES = {
    "raise": "RankError: rank 2: MemoryError: sown",
    "stall": "RankError: rank 2 made no progress for 1 s (raise stall_timeout, now 1, if one "
    "kernel can take so long)",
    "cut": f"KernelError: [nccl] {ERRORS[6]}",
}


@needs_mpi
@pytest.mark.parametrize("how", FAILURES)
def test_a_rank_fails_inside_of_a_collective(how: str) -> None:
    """The others come back with an error; and so they do if they wait again."""
    ended = mpirun(3, PROGRAM, "fails", how)
    assert ended.code != 0
    told = [f"{rank} caught {FAILURES[how]} within 5 s: True" for rank in (0, 1)]
    told += [f"{rank} cannot wait again" for rank in (0, 1)]
    assert sorted(ended.out.splitlines()) == sorted(told)


@needs_mpi
def test_a_rank_is_killed_inside_of_a_collective() -> None:
    ended = mpirun(3, PROGRAM, "fails", "kill")
    assert ended.code != 0 and ended.seconds < 10 and "signal 9" in ended.err


@needs_mpi
def test_ranks_that_never_part_end_all_the_same() -> None:
    ended = mpirun(2, PROGRAM, "leaves", "")
    assert ended.code == 0 and ended.seconds < 10, ended.err


# ---- threads


class Threads(Group):
    """A rank of a group whose ranks are threads."""

    def __init__(self, rank: int, others: list[Threads]) -> None:
        self._rank, self._others = rank, others
        self._said: tuple[bytes, Exception | None] = b"", None
        self.barrier_of_all: Any = None
        self.failure: str | None = None

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return len(self._others)

    def exchange(self, work: Callable[[], bytes]) -> list[bytes]:
        try:
            self._said = work(), None
        except Exception as error:
            self._said = b"", error
        self.barrier_of_all.wait(30)
        said = [other._said for other in self._others]
        self.barrier_of_all.wait(30)
        if (own := said[self._rank][1]) is not None:
            raise own
        for rank, (_, error) in enumerate(said):
            if error is not None:
                raise RankError(f"rank {rank}: {error}")
        return [part for part, _ in said]

    def check(self) -> None:
        if self.failure is not None:
            raise RankError(self.failure)


def groups(ranks: int) -> list[Threads]:
    made: list[Threads] = []
    barrier = threading.Barrier(ranks)
    for rank in range(ranks):
        made.append(Threads(rank, made))
        made[rank].barrier_of_all = barrier
    return made


def together(works: list[Callable[[], Any]]) -> list[Any]:
    """What each does on a thread of its own; an exception as what it is."""

    def caught(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(caught, works))


class Pair:
    """Two devices that are connected, or as many as `ranks`."""

    def __init__(self, ranks: int = 2, late: bool = False) -> None:
        self.groups = groups(ranks)
        self.devices = [EmulatedDevice(late=late) for _ in range(ranks)]
        failed = self.do(lambda rank, device: device.connect(self.groups[rank]))
        assert failed == [None] * ranks

    def do(self, work: Callable[[int, Any], Any]) -> list[Any]:
        """`work(rank, device)` on each."""
        return together([lambda r=r, d=d: work(r, d) for r, d in enumerate(self.devices)])  # type: ignore[misc]


def sum_of(device: Any, count: int = 4, dtype: Any = np.float32) -> tuple[Any, Launch]:
    """An array of ones, and its sum in place."""
    x = device.asarray(np.ones(count, dtype))
    return x, Launch(ALL_REDUCE, (x, x, count, "sum"))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("make", ["eager", "capture"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_threads(ranks: int, make: str, late: bool) -> None:
    pair = Pair(ranks, late)

    def work(rank: int, device: Any) -> list[Any]:
        x, launch = sum_of(device, 5, ml_dtypes.bfloat16)
        widths = tuple(range(1, ranks + 1))
        mine = device.asarray(np.full((3, rank + 1), rank, np.float32))
        out, scratch = (device.empty((3, sum(widths)), np.float32) for _ in range(2))
        gather = Launch(GATHER_COLUMNS, (mine, out, scratch, 3, widths))
        graph = getattr(device, make)([launch, gather, launch])
        graph.run()
        graph.run()
        return [device.read(x), device.read(out)]

    columns = np.repeat(np.arange(ranks), range(1, ranks + 1))
    for x, out in pair.do(work):
        assert x.tolist() == [ranks**4] * 5
        assert out.tolist() == [columns.tolist()] * 3
    assert pair.do(lambda rank, device: device.disconnect()) == [None] * ranks


def test_values_that_are_no_numbers() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 60000, -0.0], np.float16)
    pair = Pair()

    def work(rank: int, device: Any) -> list[np.ndarray]:
        x = device.asarray(values if rank == 0 else np.array([1, -np.inf, 1, 60000, 0], np.float16))
        total, most = (device.empty((5,), np.float16) for _ in range(2))
        launches = [
            Launch(ALL_REDUCE, (x, total, 5, "sum")),
            Launch(ALL_REDUCE, (x, most, 5, "max")),
        ]
        device.eager(launches).run()
        return [device.read(total), device.read(most)]

    (total, most), other = pair.do(work)
    assert [total.tobytes(), most.tobytes()] == [part.tobytes() for part in other]
    np.testing.assert_array_equal(total, np.array([np.nan, np.nan, -np.inf, np.inf, 0], np.float16))
    np.testing.assert_array_equal(most, np.array([1, np.inf, 1, 60000, 0], np.float16))


def test_nothing_is_done_in_a_group_of_one() -> None:
    device = EmulatedDevice()
    device.connect(ONE)
    assert device.link is None and not device.gpu.links
    device.interrupt()
    device.disconnect()
    with pytest.raises(ValueError, match=r"\[all_reduce\] this device is not connected"):
        device.eager([sum_of(device)[1]])


def test_progress_grows() -> None:
    device = EmulatedDevice()
    before = device.progress()
    x = device.empty((4,), np.float32)
    assert device.progress() > before
    before = CudaDevice.progress(device)
    device.eager([]).run()
    device.capture([]).run()
    assert CudaDevice.progress(device) == before + 1  # a graph; of no launches, none was made
    assert not device.read(x).any()


# ---- what does not fit


def test_arguments_are_checked() -> None:
    device = EmulatedDevice()
    x, half = device.empty((4, 4), np.float32), device.empty((4, 4), np.float16)
    ints, host = device.empty((4, 4), np.int32), np.zeros(16, np.float32)
    columns = x[:, :2]
    wrong: list[tuple[Any, tuple[Any, ...], type[Exception], str]] = [
        (ALL_REDUCE, (x, x, 17, "sum"), ValueError, "x has 16 elements, 17 are asked for"),
        (ALL_REDUCE, (x, x, 0, "sum"), ValueError, "0 are asked for"),
        (ALL_REDUCE, (x, x, 16, "mean"), ValueError, "'mean': expected 'sum' or 'max'"),
        (ALL_REDUCE, (x, half, 16, "sum"), TypeError, "x, out are float32, float16"),
        (ALL_REDUCE, (ints, ints, 16, "sum"), TypeError, "int32"),
        (ALL_REDUCE, (host, x, 16, "sum"), TypeError, "x must be a contiguous array of"),
        (ALL_REDUCE, (x, columns, 8, "sum"), TypeError, "out must be a contiguous array of"),
        (GATHER_COLUMNS, (x, x, half, 1, (1, 1)), TypeError, "x, out, scratch are"),
        (GATHER_COLUMNS, (x, x, x, 5, (2, 2)), ValueError, "out has 16 elements, 20 are asked"),
        (GATHER_COLUMNS, (x, x, x[:1], 2, (2, 2)), ValueError, "scratch has 4 elements, 8 are"),
        (GATHER_COLUMNS, (x, x, x, 1, (2, 0)), ValueError, r"widths \(2, 0\): expected a positive"),
        (GATHER_COLUMNS, (x, x, x, 1, ()), ValueError, r"widths \(\): expected a positive"),
    ]
    for kernel, args, kind, words in wrong:
        with pytest.raises(kind, match=rf"\[{kernel.name}\] .*{words}"):
            device.compile([Launch(kernel, args)])


def test_widths_are_checked() -> None:
    pair = Pair()

    def work(rank: int, device: Any) -> list[str]:
        x, big = device.empty((2, 2), np.float32), device.empty((2, 9), np.float32)
        told = []
        for widths in ((2, 2, 2), (2,), (3, 2) if rank == 0 else (2, 3)):
            with pytest.raises(ValueError) as caught:
                device.eager([Launch(GATHER_COLUMNS, (x, big, big, 2, widths))])
            told.append(str(caught.value))
        return told

    assert pair.do(work)[1] == [
        f"[gather_columns] x has 4 elements, for 2 rows of widths {widths}: this is rank 1 of 2"
        for widths in ("(2, 2, 2)", "(2,)", "(2, 3)")
    ]


MISMATCHES: list[tuple[Any, Any]] = [
    ((4, "sum"), (3, "sum")),
    ((4, "sum"), (4, "max")),
    ((4, "sum"), (2, "sum", np.float16)),
    ((4, "sum"), (4, "gather")),
]


@pytest.mark.parametrize("asked", MISMATCHES, ids=str)
def test_ranks_that_ask_for_different_things(asked: tuple[Any, Any]) -> None:
    """NCCL would give anything, or hang."""
    pair = Pair()

    def work(rank: int, device: Any) -> None:
        count, how, *dtype = asked[rank]
        x = device.empty((16,), dtype[0] if dtype else np.float32)
        if how == "gather":
            launch = Launch(GATHER_COLUMNS, (x, x, x, 2, (2, 2)))
        else:
            launch = Launch(ALL_REDUCE, (x, x, count, how))
        device.eager([launch]).run()
        device.wait()

    for rank, error in enumerate(pair.do(work)):
        assert isinstance(error, KernelError) and "[nccl] NCCL_ERROR_INVALID_USAGE" in str(error)
        assert f"rank {rank}: " in str(error) and f"rank {1 - rank}: " in str(error)


# ---- the end


def test_graphs_cannot_be_run_after_the_ranks_have_disconnected() -> None:
    """NCCL waits for them to go, so that they must."""
    pair = Pair()

    def work(rank: int, device: Any) -> list[str]:
        x, launch = sum_of(device)
        plain = device.capture([])
        graph, eager = device.capture([launch]), device.eager([launch])
        begun = time.monotonic()
        link = device.link
        device.disconnect()
        assert time.monotonic() - begun < 5 and device.link is None
        device.disconnect()
        link.close()
        plain.run()
        told = []
        for of_no_use in (graph, eager):
            with pytest.raises(KernelError) as caught:
                of_no_use.run()
            told.append(str(caught.value))
        assert device.read(x).tolist() == [1] * 4
        return told

    for told in pair.do(work):
        assert told == [
            "[graph] the ranks that it was captured with have disconnected",
            "[all_reduce] the ranks have disconnected",
        ]
    assert not any(device.gpu.links for device in pair.devices)


def test_disconnected_devices_can_be_connected_again() -> None:
    pair = Pair()

    def work(rank: int, device: Any) -> list[float]:
        with pytest.raises(ValueError, match="connected already"):
            device.connect(pair.groups[rank])
        device.disconnect()
        device.connect(pair.groups[rank])
        x, launch = sum_of(device)
        device.capture([launch]).run()
        return list(device.read(x))

    assert pair.do(work) == [[2.0] * 4] * 2


def test_waiting_ends_when_it_is_interrupted() -> None:
    """By another thread; with a graph that is alive, for which NCCL's own abort waits."""
    pair = Pair()
    there = threading.Event()

    def work(rank: int, device: Any) -> float:
        _, launch = sum_of(device)
        graph = device.capture([launch])
        if rank == 1:
            there.wait(20)
            device.link.abort()
            return 0
        timer = threading.Timer(0.2, device.interrupt)
        timer.start()
        begun = time.monotonic()
        for _ in range(2):
            with pytest.raises(KernelError, match=r"\[nccl\] the collectives were aborted"):
                graph.run()
                device.read(launch.args[0])
        device.interrupt()
        there.set()
        return time.monotonic() - begun

    first, _ = pair.do(work)
    assert 0.1 < first < 5


def test_the_group_says_why_if_it_knows() -> None:
    """NCCL only knows that the other end is gone, and the news of why may come later."""
    pair = Pair()

    def work(rank: int, device: Any) -> str:
        if rank == 1:
            device.link.abort()
            time.sleep(0.1)
            pair.groups[0].failure = "rank 1: MemoryError: sown"
            return ""
        device.eager([sum_of(device)[1]]).run()
        with pytest.raises(RankError) as caught:
            device.wait()
        return str(caught.value)

    assert pair.do(work)[0] == "rank 1: MemoryError: sown"


def test_a_rank_that_fails_to_part_lets_the_others_go() -> None:
    pair = Pair()

    def work(rank: int, device: Any) -> None:
        if rank == 1:
            pair.groups[0].failure = "rank 1: sown"
            return device.link.abort()
        device.eager([sum_of(device)[1]]).run()
        return device.disconnect()

    assert isinstance(pair.do(work)[0], RankError)


def test_devices_that_nobody_refers_to_let_the_others_go() -> None:
    pair = Pair()
    links = [device.gpu.links for device in pair.devices]
    assert [len(link) for link in links] == [1, 1]
    pair.devices.clear()
    gc.collect()
    end = time.monotonic() + 5
    while any(links) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(links)


@pytest.mark.parametrize("late", [False, True])
def test_what_fails_on_the_gpu_is_told_in_a_group_too(late: bool) -> None:
    pair = Pair(late=late)

    def work(rank: int, device: Any) -> None:
        runtime, stream = device.cupy.cuda.runtime, device.stream.ptr
        runtime.memsetAsync(0x1000, 0, 8, stream)
        device.wait()

    for error in pair.do(work):
        assert "cudaErrorIllegalAddress" in str(error)
        assert isinstance(error, KernelError) or not late


# ---- connecting


def test_one_rank_without_nccl_is_an_error_on_all() -> None:
    """Before any rank waits for the others inside of NCCL."""
    devices = [EmulatedDevice() for _ in range(2)]

    def missing() -> Any:
        raise RuntimeError("pip install nvidia-nccl-cu13")

    devices[1]._toolkit = devices[1]._toolkit._replace(nccl=missing)
    pairs = zip(devices, groups(2), strict=True)
    first, second = together([lambda d=d, g=g: d.connect(g) for d, g in pairs])  # type: ignore[misc]
    assert str(first) == "rank 1: pip install nvidia-nccl-cu13" and isinstance(first, RankError)
    assert str(second) == "pip install nvidia-nccl-cu13"


def test_a_rank_that_cannot_join_is_an_error_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "PATIENCE", 0.5)
    devices = [EmulatedDevice() for _ in range(2)]

    class Broken(Nccl):
        def __init__(self, gpu: Gpu) -> None:
            self.NcclCommunicator = self._fail

        def _fail(self, *_: Any) -> Any:
            raise KeyError(8)  # as CuPy, of a status that is too new for it

    broken = Broken(devices[1].gpu)
    devices[1]._toolkit = devices[1]._toolkit._replace(nccl=lambda: broken)
    pairs = zip(devices, groups(2), strict=True)
    first, second = together([lambda d=d, g=g: d.connect(g) for d, g in pairs])  # type: ignore[misc]
    assert str(second) == "[nccl] NCCL failed with status 8"
    assert isinstance(first, KernelError) and "NCCL_ERROR_SYSTEM_ERROR" in str(first)
    assert all(device.link is None for device in devices)


def test_nccl_is_looked_for_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "import_cupy", lambda: None)
    found = SimpleNamespace(available=False)
    monkeypatch.setattr(toolkit.importlib, "import_module", lambda name: found)
    with pytest.raises(RuntimeError, match=r"pip install nvidia-nccl-cu13 \(CUDA 12: nvidia-nccl-"):
        toolkit.import_nccl()
    found.available = True
    assert toolkit.import_nccl() is found
    assert toolkit.Toolkit("cuda", None, None).nccl() is found


# ---- the stand-in itself


def stand_in(late: bool = False) -> tuple[Gpu, Nccl]:
    gpu = Gpu(1 << 20, late=late)
    return gpu, Nccl(gpu)


def test_communicators_check_what_they_get() -> None:
    _, module = stand_in()
    with pytest.raises(ValueError, match="commId length 3 != 128"):
        module.NcclCommunicator(1, b"abc", 0)
    with pytest.raises(NcclError, match="INVALID_ARGUMENT"):
        module.NcclCommunicator(1, module.get_unique_id(), 1)
    alone = module.NcclCommunicator(1, module.get_unique_id(), 0)
    assert (alone.size(), alone.rank_id()) == (1, 0)
    for args in ((0, 0, 1, 99, 0, 0), (0, 0, 1, 7, 1, 0)):
        with pytest.raises(NcclError, match="INVALID_ARGUMENT"):
            alone.allReduce(*args)
    with pytest.raises(NcclError, match="INVALID_ARGUMENT"):
        alone.broadcast(0, 0, 1, 7, 1, 0)
    with pytest.raises(NcclError, match="INVALID_USAGE"):
        module.groupEnd()
    alone.destroy()
    alone.abort()
    for call in (alone.size, alone.check_async_error, lambda: alone.allReduce(0, 0, 1, 7, 0, 0)):
        with pytest.raises(NcclError, match="INVALID_ARGUMENT"):
            call()


def test_ids_are_secrets() -> None:
    _, module = stand_in()
    ids = {module.get_unique_id() for _ in range(10)}
    assert len(ids) == 10 and {len(id) for id in ids} == {128}


def test_groups_wait_for_their_end() -> None:
    device = EmulatedDevice(late=True)
    module = device._toolkit.nccl()
    alone = module.NcclCommunicator(1, module.get_unique_id(), 0)
    x = device.asarray(np.ones(4, np.float32))
    device.wait()
    args = (x.data.ptr, x.data.ptr, 4, module.NCCL_FLOAT32, 0, device.stream.ptr)
    module.groupStart()
    module.groupStart()
    alone.broadcast(*args)
    alone.allReduce(*args)
    module.groupEnd()
    assert len(device.gpu._waiting) == 0
    module.groupEnd()
    assert len(device.gpu._waiting) == 2
    assert device.read(x).tolist() == [1] * 4


def test_strangers_and_doubles_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects must know the secret; and each rank is there once."""
    monkeypatch.setattr(mesh, "PATIENCE", 2.0)
    secret = bytes(128)

    def stranger() -> bytes:
        with mesh._call(mesh._address(secret, 0), time.monotonic() + 5) as line:
            line.sendall(mesh._HELLO.pack(bytes(32), 1, 2))
            return line.recv(1)

    def second() -> Any:
        time.sleep(0.3)
        return mesh.Mesh(2, secret, 1)

    first, turned_away, other = together([lambda: mesh.Mesh(2, secret, 0), stranger, second])
    assert turned_away == b""
    told = together([lambda m=m: list(iter(lambda: m.exchange(lambda: b"x"), [b"x"] * 2))  # type: ignore[misc]
                     for m in (first, other)])  # fmt: skip
    assert all(isinstance(part, list) for part in told)
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(mesh._address(secret, 0))
        with pytest.raises(OSError, match="in use"):
            mesh.Mesh(2, secret, 0)
    counts = together([lambda n=n, r=r: mesh.Mesh(n, secret, r) for n, r in ((2, 0), (3, 1))])  # type: ignore[misc]
    assert isinstance(counts[0], ValueError) and "2 ranks here, 3 for rank 1" in str(counts[0])


def test_a_stream_s_status() -> None:
    """As CuPy gives it: no exception, whatever it is."""
    pair = Pair(late=True)
    device = pair.devices[0]
    query, stream = device.cupy.cuda.runtime.streamQuery, device.stream.ptr
    assert query(stream) == 0
    device.eager([sum_of(device)[1]]).run()
    assert query(stream) == nccl.NOT_READY == query(stream)
    assert query(stream + 1) == 400
    device.interrupt()
    end = time.monotonic() + 5
    while query(stream) != 0:
        assert time.monotonic() < end
    device.cupy.cuda.runtime.memsetAsync(0x1000, 0, 8, stream)
    assert query(stream) == 719 == query(stream)
    device.stream.begin_capture()
    assert query(stream) == 900
    with pytest.raises(RuntimeError, match="CaptureInvalidated"):
        device.stream.end_capture()


def test_copies_of_columns_are_checked() -> None:
    device = EmulatedDevice()
    runtime, stream = device.cupy.cuda.runtime, device.stream.ptr
    x = device.empty((64,), np.uint8)
    way = runtime.memcpyDeviceToDevice
    for args, words in (
        ((x.data.ptr, 8, x.data.ptr, 8, 8, 9, way, stream), "IllegalAddress"),
        ((x.data.ptr, 4, x.data.ptr, 8, 8, 2, way, stream), "InvalidPitchValue"),
        ((x.data.ptr, 8, x.data.ptr, 8, 8, 2, runtime.memcpyHostToDevice, stream), "Direction"),
    ):
        with pytest.raises(RuntimeError, match=words):
            runtime.memcpy2DAsync(*args)
    assert emulated.Nccl is Nccl
