"""What ranks do together on emulated GPUs. Run under mpirun by test_nccl.py; argv: what, and how.

Every rank checks its own results, and says what it made of it in a line on stdout.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from nanocupy.device.emulated import EmulatedDevice
from nanocupy.device.protocols import KernelError, Launch
from nanocupy.distributed import RankError, world
from nanocupy.dtypes import FLOATS
from nanocupy.kernels.kernel import ALL_REDUCE, GATHER_COLUMNS

COUNTS = (1, 7, 1000, 400_000)  # the last is more than a socket holds
WIDTHS = (3, 1, 64)  # of ranks


def numbers(seed: int, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """What a rank has: of different sizes, so that the order of a sum matters."""
    random = np.random.default_rng(seed)
    size = np.exp2(random.integers(-6, 7, shape))
    return np.asarray(random.standard_normal(shape) * size).astype(dtype)


def reduced(parts: Sequence[np.ndarray], operation: str) -> np.ndarray:
    """In the order of ranks, in the dtype."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part if operation == "sum" else np.maximum(total, part)
    return total


def same(x: np.ndarray, y: np.ndarray) -> None:
    assert x.dtype == y.dtype and x.shape == y.shape
    assert x.tobytes() == y.tobytes(), (x, y)


def check_all_reduce(device: Any, rank: int, ranks: int, make: Callable[..., Any]) -> None:
    """Of each dtype and size, apart and in place."""
    for dtype in FLOATS:
        for count in COUNTS:
            x, out = device.empty((count,), dtype), device.empty((count,), dtype)
            graphs = {
                "sum": make([Launch(ALL_REDUCE, (x, out, count, "sum"))]),
                "max": make([Launch(ALL_REDUCE, (x, out, count, "max"))]),
                "sum again": make([Launch(ALL_REDUCE, (x, x, count, "sum"))]),
            }
            for seed, (how, graph) in enumerate(graphs.items()):
                parts = [numbers(10 * seed + r, (count,), dtype) for r in range(ranks)]
                device.write(x, parts[rank])
                graph.run()
                same(device.read(x if "again" in how else out), reduced(parts, how[:3]))


def check_gather(device: Any, rank: int, ranks: int, make: Callable[..., Any]) -> None:
    """Columns of uneven widths."""
    widths = WIDTHS[:ranks]
    for dtype in FLOATS:
        for rows in (1, 5):
            x = device.empty((rows, widths[rank]), dtype)
            out = device.empty((rows, sum(widths)), dtype)
            scratch = device.empty((out.size,), dtype)
            graph = make([Launch(GATHER_COLUMNS, (x, out, scratch, rows, widths))])
            parts = [numbers(r, (rows, width), dtype) for r, width in enumerate(widths)]
            device.write(x, parts[rank])
            graph.run()
            same(device.read(out), np.concatenate(parts, axis=1))


def check_replays(device: Any, rank: int, ranks: int, make: Callable[..., Any]) -> None:
    """A step like a model's, many times over, with what changes sent by a staging buffer."""
    dtype, count, widths = np.dtype(ml_dtypes.bfloat16), 96, (40, 8, 16)[:ranks]
    box = device.staging_buffer(2 * count)
    x = box.device.view(dtype)
    summed = device.empty((count,), dtype)
    mine = device.empty((2, widths[rank]), dtype)
    out = device.empty((2, sum(widths)), dtype)
    scratch = device.empty((out.size,), dtype)
    graph = make([
        Launch(ALL_REDUCE, (x, summed, count, "sum")),
        Launch(ALL_REDUCE, (summed, summed, count, "max")),
        Launch(GATHER_COLUMNS, (mine, out, scratch, 2, widths)),
        Launch(ALL_REDUCE, (summed, x, count, "sum")),
    ])  # fmt: skip
    device.write(mine, np.full((2, widths[rank]), rank, dtype))
    for step in range(200):
        if (step + rank) % 50 == 0:
            time.sleep(0.02)  # now one is late, now another
        parts = [numbers(ranks * step + r, (count,), dtype) for r in range(ranks)]
        box.host[:] = parts[rank].view(np.uint8)
        box.send(2 * count)
        graph.run()
        box.receive(2 * count)
        total = reduced(parts, "sum")
        same(box.host.view(dtype), reduced([total] * ranks, "sum"))
    columns = [np.full((2, width), r, dtype) for r, width in enumerate(widths)]
    same(device.read(out), np.concatenate(columns, axis=1))


def results(how: str) -> None:
    group = world()
    device = EmulatedDevice(late=how == "late")
    device.connect(group)
    try:
        for make in (device.eager, device.capture):
            for check in (check_all_reduce, check_gather, check_replays):
                check(device, group.rank(), group.size(), make)
    finally:
        device.disconnect()
    assert device.link is None
    device.wait()


def fails(how: str) -> None:
    """The last rank fails inside of a step; the others say what they caught."""
    group = world()
    rank, ranks = group.rank(), group.size()
    device = EmulatedDevice()
    device.connect(group)
    x = device.empty((1000,), np.float32)
    graph = device.capture([Launch(ALL_REDUCE, (x, x, 1000, "sum"))] * 3)
    graph.run()
    device.wait()
    group.set_stall(1.0)  # type: ignore[attr-defined]
    begun = time.monotonic()
    try:
        with group.step(device):  # type: ignore[attr-defined]
            if rank == ranks - 1:
                fail(how, device, group)
            for _ in range(10):
                graph.run()
                device.wait()
    except (KernelError, RankError) as error:
        seconds = time.monotonic() - begun
        print(
            f"{rank} caught {type(error).__name__}: {error} within 5 s: {seconds < 5}", flush=True
        )
        try:
            device.wait()
        except (KernelError, RankError):
            print(f"{rank} cannot wait again", flush=True)
    time.sleep(1)  # so that all have their say before the launcher ends the job
    sys.exit(3)


def fail(how: str, device: Any, group: Any) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        group.fail("MemoryError: sown")
    elif how == "cut":  # and the group does not know
        device.interrupt()
    time.sleep(8)
    sys.exit(3)


def leaves(how: str) -> None:
    """Nobody parts: the program just ends, with a graph that is alive."""
    group = world()
    device = EmulatedDevice()
    device.connect(group)
    x = device.empty((8,), np.float32)
    globals()["kept"] = graph = device.capture([Launch(ALL_REDUCE, (x, x, 8, "sum"))])
    graph.run()
    device.wait()


{"results": results, "fails": fails, "leaves": leaves}[sys.argv[1]](sys.argv[2])
print(f"{world().rank()} well", flush=True)
