"""The thread pool: what one thread writes, another sees, in that order, on every processor."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import njit, types

from device.chains import chain
from nanocupy.device.cpu import thread_pool, worker_loop
from nanocupy.device.cpu.device import CpuDevice


def assembly(function: Any, triple: str) -> str:
    """Of a kernel, for a processor that need not be this one."""
    signature = types.int64(types.CPointer(types.int64), types.int64, types.int64)
    [text] = njit(signature, _nrt=False)(function).inspect_llvm().values()
    text = re.sub(r'"target-(cpu|features)"="[^"]*"', "", text)
    text = re.sub(r"^target (triple|datalayout) = .*$", "", text, flags=re.MULTILINE)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        machine = llvm.Target.from_triple(triple).create_target_machine(opt=2)
    except RuntimeError as error:
        pytest.skip(f"this LLVM has no such target: {error}")
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{text}')
    module.data_layout = str(machine.target_data)
    return str(machine.emit_assembly(module))


@pytest.mark.parametrize(
    ("triple", "store"),
    [("aarch64-unknown-linux-gnu", r"\bstlr\b|\bdmb\b"), ("x86_64-unknown-linux-gnu", r"\bxchg")],
)
def test_a_run_is_announced_by_a_store_that_nothing_passes(triple: str, store: str) -> None:
    assert re.search(store, assembly(worker_loop.announce, triple))


class Watched(np.ndarray):
    """A control block that says which of its words Python itself writes."""

    written: set[int]

    def __array_finalize__(self, made_from: Any) -> None:
        self.written = getattr(made_from, "written", set())

    def __setitem__(self, place: Any, value: Any) -> None:
        self.written.add(place.start if isinstance(place, slice) else place)
        super().__setitem__(place, value)


def test_python_itself_never_writes_the_word_that_workers_watch() -> None:
    device = CpuDevice(threads=2)
    launches, first, last = chain(device, 5)
    graph = device.capture(launches)
    made = thread_pool.shared_pool(2)
    made.close()  # the next run starts workers on what is watched
    made._control = made._control.view(Watched)
    watched = made._control
    for run in range(3):
        first[:] = run
        graph.run()
        assert (last == run + 5).all()
    assert len(made._workers) == 1 and watched[thread_pool._START] >> 8 == 3
    made.close()
    written = watched.written
    assert {thread_pool._TABLE, thread_pool._STATUS, thread_pool._STOP} <= written
    assert thread_pool._START not in written


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_child_of_a_fork_starts_workers_of_its_own() -> None:
    """All threads take part, whatever the machine is busy with: it could not go on without them."""
    device = CpuDevice(threads=2)
    device.all_threads = True
    launches, first, last = chain(device, 5)
    graph = device.capture(launches)
    graph.run()
    assert [worker.is_alive() for worker in thread_pool.shared_pool(2)._workers] == [True]
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        first[:] = 7
        graph.run()
        alive = [worker.is_alive() for worker in thread_pool.shared_pool(2)._workers]
        os._exit(0 if (last == 12).all() and alive == [True] else 1)
    assert os.waitpid(child, 0)[1] == 0
