"""The CPU device: kernel cache, thread pool, graphs."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.chains import chain
from nanocupy.device.cpu import jit, thread_pool
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.cpu.memory import HUGE_PAGE, SLAB
from nanocupy.device.protocols import KernelError, Launch, fixed_rows
from nanocupy.kernels import launches_of

CPU = launches_of("cpu")


@pytest.mark.parametrize("pool", [1, 2, 3, 5])
def test_every_kernel_waits_for_the_one_before(pool: int) -> None:
    device = CpuDevice(threads=pool)
    launches, first, last = chain(device, 200)
    graph = device.capture(launches)
    for run in range(5):
        first[:] = run
        graph.run()
        assert (last == run + 200).all()


def test_eager_is_the_same_list() -> None:
    device = CpuDevice(threads=2)
    launches, first, last = chain(device, 7)
    device.capture(launches).run()
    captured = last.copy()
    first[:] = 0
    device.eager(launches).run()
    assert np.array_equal(last, captured)


def test_workers_park_and_wake() -> None:
    device = CpuDevice(threads=2)
    launches, first, last = chain(device, 3)
    graph = device.capture(launches)
    for pause in (0, 0.05, 0, 0.2, 0.001):
        time.sleep(pause)
        first[:] = 0
        graph.run()
        assert (last == 3).all()


def test_parked_workers_take_no_time() -> None:
    device = CpuDevice(threads=2)
    device.capture(chain(device, 3)[0]).run()
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def test_callers_take_turns() -> None:
    device = CpuDevice(threads=2)
    wrong: list[int] = []

    def work(number: int) -> None:
        launches, first, last = chain(device, 20)
        graph = device.capture(launches)
        for run in range(50):
            first[:] = number * 1000 + run
            graph.run()
            wrong.extend([number] if not (last == number * 1000 + run + 20).all() else [])

    callers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_a_failing_kernel_is_named_and_the_team_lives_on() -> None:
    device = CpuDevice(threads=2)
    good, first, last = chain(device, 4)
    x = device.asarray(np.zeros((4, 16), np.float32))
    index = device.asarray(np.array([9], np.int32))
    out = device.empty((1, 16), np.float32)
    bad = CPU.take_rows.launch(device, out, x, index, fixed_rows(device, 1))
    graph = device.capture([*good[:2], bad, *good[2:]])
    with pytest.raises(KernelError, match=r"take_rows.*kernel 2 .*code 1"):
        graph.run()
    first[:] = 0
    device.capture(good).run()
    assert (last == 4).all()


def test_closing_a_team_is_harmless() -> None:
    device = CpuDevice(threads=3)
    launches, first, last = chain(device, 5)
    graph = device.capture(launches)
    graph.run()
    for _ in range(2):
        thread_pool.shared_pool(3).close()
        thread_pool.shared_pool(3).close()
        first[:] = 0
        graph.run()
        assert (last == 5).all()


def test_a_worker_that_cannot_start_fails_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    device = CpuDevice(threads=3)
    launches, first, last = chain(device, 5)
    graph = device.capture(launches)
    thread_pool.shared_pool(3).close()
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "nanocupy-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="start new thread"):
                graph.run()
    first[:] = 0
    graph.run()
    assert (last == 5).all()


@pytest.mark.parametrize("pause", [0, 0.02])
def test_a_run_without_its_caller_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    """Ctrl-C may come when the workers have begun and the caller has not, or is just done."""
    device = CpuDevice(threads=3)
    launches, first, last = chain(device, 5)
    graph = device.capture(launches)
    pool, calls = thread_pool.shared_pool(3), iter(range(3))
    walk = pool._walk

    def interrupted(*args: int) -> int:
        if next(calls) == 1:
            walk(*args)
        time.sleep(pause)
        raise KeyboardInterrupt

    for _ in range(3):
        graph.run()
        with monkeypatch.context() as patch:
            patch.setattr(pool, "_walk", interrupted)
            with pytest.raises(KeyboardInterrupt):
                graph.run()
        first[:] = 7
        graph.run()
        assert (last == 12).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_gets_workers_of_its_own() -> None:
    device = CpuDevice(threads=2)
    launches, first, last = chain(device, 5)
    graph = device.capture(launches)
    graph.run()
    child = os.fork()
    if child == 0:
        first[:] = 7
        graph.run()
        os._exit(0 if (last == 12).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    first[:] = 1
    graph.run()
    assert (last == 6).all()


def test_memory_is_counted_whoever_asks() -> None:
    device = CpuDevice(threads=1)
    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(lambda _: device.empty((100,), np.float32), range(2000)))
    assert device.memory_active() == 2000 * 400
    del arrays
    assert device.memory_active() == 0


def test_lasting_arrays_lie_side_by_side_in_huge_pages() -> None:
    memory = CpuDevice(threads=1).memory
    arrays = [memory.persistent((n, 3), np.float32) for n in (5, 100_000, 0, 7)]
    first, second, _, last = [a.ctypes.data for a in arrays]
    assert (first % HUGE_PAGE, second - first, last - second) == (0, 64, 1_200_000)
    assert memory.active == sum(a.nbytes for a in arrays)
    large = memory.persistent((SLAB // 4 + 1,), np.float32)
    assert large.ctypes.data % HUGE_PAGE == 0
    for a in (*arrays, large):
        assert not a.any()
        a[...] = 1
    del arrays, a, large
    assert memory.active == 0


def test_a_slab_is_left_for_the_next_when_it_is_full() -> None:
    memory = CpuDevice(threads=1).memory
    arrays = [memory.persistent((SLAB // 5 * 2,), np.uint8) for _ in range(6)]
    for n, a in enumerate(arrays):
        a[...] = n
    assert [set(a[:: 1 << 20]) for a in arrays] == [{n} for n in range(6)]


def test_memory_is_counted_and_given_back() -> None:
    device = CpuDevice(threads=1)
    before = device.memory_active()
    array = device.empty((1000, 10), np.float32)
    assert device.memory_active() == before + 40_000
    assert array.ctypes.data % 64 == 0 and not array.any()
    del array
    gc.collect()
    assert device.memory_active() == before


@pytest.mark.parametrize("count", [0, -1, 65, 10**9])
def test_thread_counts_outside_the_range_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        CpuDevice(threads=count)


def test_arguments_are_arrays_and_integers() -> None:
    device = CpuDevice(threads=1)
    kernel = CPU.elementwise.KERNELS["add"]
    with pytest.raises(TypeError, match=r"1\.5"):
        device.capture([Launch(kernel, (1.5,))])
    with pytest.raises(ValueError, match="contiguous"):
        device.capture([Launch(kernel, (np.zeros((4, 4))[:, 1],))])


# ---- the kernel cache

_CHILD = """
import sys
import numpy as np
from nanocupy.device.protocols import fixed_rows
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.kernels import launches_of
device = CpuDevice(threads=2)
x = device.asarray(np.arange(32, dtype=np.float32).reshape(2, 16))
out = device.empty((2, 16), np.float32)
rows = fixed_rows(device, 2)
launch = launches_of(device.kind).elementwise.launch_binary
device.capture([launch(device, "add", out, x, x, rows, 16)]).run()
assert (out == 2 * x).all()
assert "numba" not in sys.modules or "mended" in sys.argv
"""


def child(folder: Path, *words: str, **env: str) -> dict[Path, int]:
    """Run a graph in a process of its own; when each file of its cache was written."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *words],
        env={**os.environ, "NANOCUPY_CACHE": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*.o")}


def test_a_warm_start_links_what_is_there(tmp_path: Path) -> None:
    first = child(tmp_path)
    assert len(first) == 4 and child(tmp_path) == first
    [folder] = (tmp_path / "kernels").iterdir()
    assert folder.stat().st_mode & 0o077 == 0


def test_a_damaged_file_is_compiled_again(tmp_path: Path) -> None:
    first = child(tmp_path)
    [damaged] = (path for path in first if path.name.endswith("elementwise_cpu_body_add.o"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    mended = child(tmp_path, "mended")
    assert {path for path in mended if mended[path] != first[path]} == {damaged}
    assert child(tmp_path) == mended


@pytest.mark.parametrize("level", ["avx2", "generic"])
def test_lower_simd_levels_have_their_own_kernels(tmp_path: Path, level: str) -> None:
    native, lower = child(tmp_path), child(tmp_path, NANOCUPY_SIMD=level)
    assert len(lower) in (len(native), 2 * len(native))  # the same where it is the host's own level
    assert child(tmp_path, NANOCUPY_SIMD=level) == lower


def test_the_cache_is_named_by_all_that_says_what_a_kernel_is() -> None:
    """The arguments of chains' kernels and their order are in `device.chain`."""
    names = {"/".join(path.parts[-2:]) for path in jit._sources()}
    assert {"device/chain.py", "cpu/chains.py", "cpu/simd.py", "linear/cpu_body.py"} <= names


def test_kernels_call_nothing_of_pythons() -> None:
    """Else a cached kernel could not be linked in a process without Numba."""
    kernel = jit.Kernel("nanocupy.kernels.elementwise.cpu_body:add")
    assert kernel.address and b"PyErr" not in (jit.cached(kernel.source) or b"PyErr")


class Missing:
    """A kernel of which no cache knows."""

    ready = False

    by_numba = True

    def __init__(self, name: str) -> None:
        self.source = f"nanocupy.kernels.elementwise.cpu_body:{name}"
        self.address = 1


def test_a_kernel_that_many_launches_share_is_compiled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(jit, "_compile_in_processes", lambda sources, tick: asked.extend(sources))
    kernels: list[Any] = [Missing("add"), Missing("mul"), Missing("add"), Missing("mul")]
    jit.compile_all(kernels)
    assert sorted(asked) == sorted({kernel.source for kernel in kernels})


@pytest.mark.parametrize("python", ["/nonexistent/python", shutil.which("false")])
def test_the_caller_compiles_where_no_other_process_can(
    monkeypatch: pytest.MonkeyPatch, python: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    jit.compile_all([Missing("add"), Missing("mul"), Missing("silu")])  # type: ignore[list-item]
