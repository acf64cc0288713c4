"""The CUDA device: arrays in a memory pool, kernels on one stream, graphs by capture."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from nanocupy.device.cuda.blas import Blas, workspace_bytes
from nanocupy.device.cuda.compiler import Compiler
from nanocupy.device.cuda.context import Context
from nanocupy.device.cuda.graph import CudaGraph, EagerGraph
from nanocupy.device.cuda.launch import as_kernel_error, check, in_library, is_collective
from nanocupy.device.cuda.memory import CudaStagingBuffer, Memory
from nanocupy.device.cuda.nccl import NcclLink, connect
from nanocupy.device.cuda.toolkit import Toolkit, real_toolkit
from nanocupy.device.protocols import Launch, Tick
from nanocupy.distributed.group import Group


class CudaDevice:
    """A GPU, for one thread at a time. See `protocols.Device`.

    Args:
        toolkit: CuPy and CUDA's libraries; those that are installed if None.
        index: which GPU.
        tick: called as `tick(done, total)` while kernels are compiled for the first time.

    Attributes:
        counters: see `Context`.

    Raises:
        RuntimeError: there is no GPU, or something is missing; the message says what to do.
    """

    kind = "cuda"
    threads = 1
    row_invariant = unified_memory = False
    half_precision = fixed_grids = True

    def __init__(
        self, toolkit: Toolkit | None = None, index: int = 0, tick: Tick | None = None
    ) -> None:
        self._toolkit = toolkit or real_toolkit()
        self._context = context = Context(self._toolkit, index)
        self.name, self.cupy, self.stream = context.name, context.cupy, context.stream
        self.counters, self.current, self.wait = context.counters, context.current, context.wait
        self.capability, self.multiprocessors = context.capability, context.multiprocessors
        self.memory = memory = Memory(context)
        self.empty, self.write, self.read = memory.empty, memory.write, memory.read
        self.memory_active, self.memory_free = memory.active, memory.free
        self._compiler = Compiler(self._toolkit, context.capability, tick)
        workspace = memory.empty((workspace_bytes(context.capability),), np.uint8)
        with self.current():
            self._blas = Blas(self._toolkit.cublas, self.stream, workspace)
        self._warm: set[Any] = set()  # the products that ran
        # At exit CUDA may be gone already.
        weakref.finalize(self, self._blas.close).atexit = False

    # ---- memory

    def asarray(self, array: np.ndarray) -> Any:
        out = self.memory.uninitialized(array.shape, array.dtype)
        self.write(out, array)
        return out

    def staging_buffer(self, nbytes: int) -> CudaStagingBuffer:
        return CudaStagingBuffer(self._context, self.memory, nbytes)

    def memory_total(self) -> int:
        return self._context.memory_info()[1]

    # ---- launches

    def compile(self, launches: Sequence[Launch]) -> None:
        """Check launches, and compile and load their kernels."""
        for launch in launches:
            check(launch, self.cupy.ndarray, self._context.max_shared)
        with self.current():
            self._compiler.load(x.kernel for x in launches if not in_library(x))

    def capture(self, launches: Sequence[Launch]) -> CudaGraph:
        calls = self.prepare(launches)
        self._warm_up(launches)
        graph = CudaGraph(self._context, launches, calls)
        if self.link is not None and any(map(is_collective, launches)):
            self.link.graphs.add(graph)
        return graph

    def eager(self, launches: Sequence[Launch]) -> EagerGraph:
        return EagerGraph(self._context, launches, self.prepare(launches))

    def prepare(self, launches: Sequence[Launch]) -> list[Callable[[], None]]:
        """Compile launches; a function for each that puts it on the stream."""
        self.compile(launches)
        with self.current():
            return [self._call(launch) for launch in launches]

    def progress(self) -> int:
        return self.counters["graphs"] + self.counters["launches"]

    def _call(self, launch: Launch) -> Callable[[], None]:
        if is_collective(launch):
            return self._linked(launch).call(launch)
        if in_library(launch):
            return partial(self._blas.gemm, launch)
        kernel = self._compiler[launch.kernel]
        with as_kernel_error(launch.kernel.name):
            # Beyond 48 KB a kernel has to ask, and not while a stream captures.
            if launch.shared > kernel.max_dynamic_shared_size_bytes:
                kernel.max_dynamic_shared_size_bytes = launch.shared
            function = kernel.kernel
        size = (launch.grid, (launch.block,))
        return partial(function, *size, launch.args, launch.shared, self.stream)

    def _warm_up(self, launches: Sequence[Launch]) -> None:
        """Run every sort of library call once, into scratch memory: libraries load and connect at
        first use, which would break a capture."""
        for launch in filter(in_library, launches):
            with self.current(), as_kernel_error(launch.kernel.name):
                if is_collective(launch):
                    self._linked(launch).warm_up(launch, self.memory.uninitialized)
                else:
                    self._warm_up_gemm(launch)

    def _warm_up_gemm(self, launch: Launch) -> None:
        _, x, weight, m, n, k, out_stride, accumulate = launch.args
        sort = weight.dtype, m, n, k, out_stride, accumulate
        if sort not in self._warm:
            self._warm.add(sort)
            out = self.memory.uninitialized((m, out_stride), np.float32)
            self._blas.gemm(launch._replace(args=(out, x, weight, *sort[1:])))

    # ---- other ranks

    @property
    def link(self) -> NcclLink | None:
        return self._context.link

    def connect(self, group: Group) -> None:
        """See `protocols.Device.connect`.

        Raises:
            RuntimeError: NCCL is not installed, or something is wrong with it.
        """
        if self.link is not None:
            raise ValueError(f"[{self.name}] this device is connected already")
        if group.size() > 1:
            scratch = self.empty((1,), np.float32)
            link = connect(self._toolkit, self.current(), self.stream, group, scratch)
            self._context.link = link
            # Nobody may wait for a rank that never disconnected. At exit all ends by itself.
            weakref.finalize(self, link.abort).atexit = False

    def disconnect(self) -> None:
        if self.link is not None:
            self.link.close()
            self._context.link = None

    def interrupt(self) -> None:
        if (link := self.link) is not None:
            link.abort()

    def _linked(self, launch: Launch) -> NcclLink:
        if self.link is None:
            raise ValueError(
                f"[{launch.kernel.name}] this device is not connected to other ranks: see connect()"
            )
        return self.link
