"""Ranks as forked processes that share memory, with nothing of MPI."""

from __future__ import annotations

import math
import mmap
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import wait

import numpy as np

from nanocupy.device.cpu import jit, thread_pool
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.cpu.link import Link, window_bytes
from nanocupy.kernels.collective import cpu

LIMIT = 60  # seconds


def shared(shape: tuple[int, ...], dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
    """A zeroed array that processes forked later see, too."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, max(nbytes, 1))
    return np.frombuffer(memory, np.uint8)[:nbytes].view(dtype).reshape(shape)


def window(ranks: int, threads: int) -> np.ndarray:
    return shared((window_bytes(ranks, threads),), np.uint8)


def connected(memory: np.ndarray, rank: int, ranks: int, threads: int) -> CpuDevice:
    device = CpuDevice(threads)
    device.link_to(Link(memory, rank, ranks, device.empty((1,), np.int64)))
    return device


def on_ranks(
    ranks: int,
    threads_each: int,
    work: Callable[[CpuDevice, int], None],
    memory: np.ndarray | None = None,
) -> None:
    """`work(device, rank)` in a process for each rank; their devices share a window."""
    kernels = (*thread_pool.KERNELS, cpu.ALL_REDUCE, cpu.GATHER_COLUMNS)
    jit.compile_all(kernels)  # once, and not in every process
    if memory is None:
        memory = window(ranks, threads_each)

    def one(rank: int) -> None:
        work(connected(memory, rank, ranks, threads_each), rank)

    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=one, args=(rank,), daemon=True) for rank in range(ranks)]
    for process in started:
        process.start()
    try:
        left = {process.sentinel: (rank, process) for rank, process in enumerate(started)}
        while left:
            ended = wait(list(left), timeout=LIMIT)
            assert ended, f"ranks {[rank for rank, _ in left.values()]} hang"
            for sentinel in ended:
                rank, process = left.pop(sentinel)  # type: ignore[call-overload]
                process.join()
                assert process.exitcode == 0, f"rank {rank} ended with {process.exitcode}"
    finally:
        for process in started:  # the others wait for one that failed
            process.kill()
            process.join()
