"""The CUDA device: arrays in a memory pool, kernels on one stream, graphs by capture."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from nanocupy.device.cuda.blas import Blas, workspace_bytes
from nanocupy.device.cuda.compiler import Compiler
from nanocupy.device.cuda.graph import CudaGraph, EagerGraph
from nanocupy.device.cuda.launch import check, in_library, is_collective, naming
from nanocupy.device.cuda.nccl import Nccl, join
from nanocupy.device.cuda.toolkit import Toolkit, check_capability, real_toolkit
from nanocupy.device.cuda.upload import Uploader, pinned
from nanocupy.device.protocols import KernelError, Launch, Tick
from nanocupy.distributed.group import Group

WHAT_TO_DO = (
    "lower --gpu-memory-utilization, --kv-memory, --num-kv-blocks, --max-num-batched-tokens or "
    "--max-num-seqs, choose a smaller model, or end other programs that use the GPU"
)


class CudaDevice:
    """A GPU. What it is given runs in order, on one stream; for one thread at a time.

    Args:
        toolkit: what it stands on; CuPy if None.
        index: which GPU.
        tick: called as `tick(done, total)` while kernels are compiled for the first time.

    Attributes:
        counters: how often what reached the driver: "graphs", "uploads" and "downloads" (of
            staging buffers), "launches" (outside graphs).
        link: what joins it with the GPUs of other ranks; None: nothing does.

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
        toolkit = toolkit or real_toolkit()
        self.name, self.tick, self.cupy = toolkit.name, tick, toolkit.cupy
        self._toolkit = toolkit
        self.counters: Counter[str] = Counter()
        self.link: Nccl | None = None
        cuda = self.cupy.cuda
        self._gpu = cuda.Device(index)
        with self.current(), naming(self.name):
            self.capability = check_capability(self._gpu.compute_capability)
            attributes = self._gpu.attributes
            self.multiprocessors = int(attributes["MultiProcessorCount"])
            self._most_shared = int(attributes["MaxSharedMemoryPerBlockOptin"])
            # Apart from the default stream, whose every use elsewhere would break a capture.
            self.stream = cuda.Stream(non_blocking=True)
        self._pool = cuda.MemoryPool()
        self._uploader = Uploader(self.cupy, self.stream)
        self._compiler = Compiler(toolkit, self.capability, tick)
        workspace = self.empty((workspace_bytes(self.capability),), np.uint8)
        with self.current():
            self._blas = Blas(toolkit.cublas, self.stream, workspace)
        self._warm: set[Any] = set()  # the products that ran
        # At exit CUDA may be gone already.
        weakref.finalize(self, self._blas.close).atexit = False

    def current(self) -> Any:
        """A context in which this GPU is the thread's current one."""
        return self._gpu

    # ---- memory

    def empty(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> Any:
        array = self._new(shape, np.dtype(dtype))
        if array.nbytes:
            with self.current(), naming("memory"):
                runtime = self.cupy.cuda.runtime
                runtime.memsetAsync(array.data.ptr, 0, array.nbytes, self.stream.ptr)
        return array

    def asarray(self, array: np.ndarray) -> Any:
        out = self._new(array.shape, array.dtype)
        self.write(out, array)
        return out

    def write(self, to: Any, array: np.ndarray) -> None:
        if to.shape != array.shape or to.dtype != array.dtype:
            raise ValueError(
                f"[write] {array.dtype} {array.shape} into {to.dtype} {to.shape} of the device's"
            )
        _must_be_contiguous(to, "write")
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._wait_for_ranks()
        with self.current(), naming("write"):
            self._uploader.write(to.data.ptr, source)

    def read(self, array: Any) -> np.ndarray:
        _must_be_contiguous(array, "read")
        out = np.empty(array.shape, array.dtype)
        runtime = self.cupy.cuda.runtime
        ends = (out.ctypes.data, array.data.ptr)
        self._wait_for_ranks()
        with self.current(), naming("read"):
            if out.nbytes:
                way = runtime.memcpyDeviceToHost
                runtime.memcpyAsync(*ends, out.nbytes, way, self.stream.ptr)
        self.wait()
        return out

    def wait(self) -> None:
        """Until all that was launched is done. Raises KernelError if some of it failed.

        In a group: RankError, if another rank has failed.
        """
        self._wait_for_ranks()
        try:
            with self.current():
                self.cupy.cuda.runtime.streamSynchronize(self.stream.ptr)
        except KernelError:
            raise
        except RuntimeError as error:
            raise KernelError(
                f"[{self.name}] something that was launched failed: {error}; to learn what, run "
                "again with capture=False and CUDA_LAUNCH_BLOCKING=1 in the environment"
            ) from error

    def _wait_for_ranks(self) -> None:
        """Before whatever CUDA itself waits in: it would not notice that a rank has died."""
        if self.link is not None:
            self.link.wait()

    def staging_buffer(self, nbytes: int) -> CudaStagingBuffer:
        return CudaStagingBuffer(self, nbytes)

    def memory_active(self) -> int:
        return int(self._pool.used_bytes())

    def memory_free(self) -> int:
        """Bytes of the GPU's that nobody has, not even this device's pool."""
        with self.current(), naming("memory"):
            self._pool.free_all_blocks()
            return int(self._gpu.mem_info[0])

    def memory_total(self) -> int:
        """Bytes of the GPU's."""
        return int(self._gpu.mem_info[1])

    def _new(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """An array with anything in it."""
        nbytes = prod(shape) * dtype.itemsize
        with self.current(), naming("memory"):
            try:
                memory = self._pool.malloc(nbytes)
            except MemoryError as error:  # CuPy's OutOfMemoryError is one
                free, total = self._gpu.mem_info
                raise MemoryError(
                    f"[{self.name}] no memory for {nbytes:,} bytes: {self.memory_active():,} are "
                    f"in use here, {free:,} of the GPU's {total:,} are free: {WHAT_TO_DO}"
                ) from error
            return self.cupy.ndarray(shape, dtype, memory)

    # ---- launches

    def capture(self, launches: Sequence[Launch]) -> CudaGraph:
        return CudaGraph(self, launches)

    def eager(self, launches: Sequence[Launch]) -> EagerGraph:
        return EagerGraph(self, launches)

    def compile(self, launches: Sequence[Launch]) -> None:
        """Check launches, and compile and load their kernels."""
        for launch in launches:
            check(launch, self.cupy.ndarray, self._most_shared)
        with self.current():
            self._compiler.load(x.kernel for x in launches if not in_library(x))

    def prepare(self, launches: Sequence[Launch]) -> list[Callable[[], None]]:
        """The same; a function for each launch that puts it on the stream."""
        self.compile(launches)
        with self.current():
            return [self._call(launch) for launch in launches]

    def _call(self, launch: Launch) -> Callable[[], None]:
        if is_collective(launch):
            return self._linked(launch).call(launch)
        if in_library(launch):
            return partial(self._blas.gemm, launch)
        kernel = self._compiler[launch.kernel]
        with naming(launch.kernel.name):
            # Beyond 48 KB a kernel has to ask, and not while a stream captures.
            if launch.shared > kernel.max_dynamic_shared_size_bytes:
                kernel.max_dynamic_shared_size_bytes = launch.shared
            function = kernel.kernel
        size = (launch.grid, (launch.block,))
        return partial(function, *size, launch.args, launch.shared, self.stream)

    def warm_up(self, launches: Sequence[Launch]) -> None:
        """Run every sort of what libraries do once: they load and connect at first use.

        Results go to memory of no importance.
        """
        for launch in filter(in_library, launches):
            with self.current(), naming(launch.kernel.name):
                if is_collective(launch):
                    self._linked(launch).warm_up(launch, self._new)
                else:
                    self._warm_up_gemm(launch)

    def _warm_up_gemm(self, launch: Launch) -> None:
        _, x, weight, m, n, k, out_stride, accumulate = launch.args
        sort = weight.dtype, m, n, k, out_stride, accumulate
        if sort not in self._warm:
            self._warm.add(sort)
            out = self._new((m, out_stride), np.dtype(np.float32))
            self._blas.gemm(launch._replace(args=(out, x, weight, *sort[1:])))

    # ---- other ranks

    def connect(self, group: Group) -> None:
        """Join this GPU with those of a group's other ranks, which all do so together.

        Raises:
            RuntimeError: NCCL is not installed, or something is wrong with it.
            RankError: with another rank.
        """
        if self.link is not None:
            raise ValueError(f"[{self.name}] this device is connected already")
        if group.size() > 1:
            one = self.empty((1,), np.float32)
            self.link = join(self._toolkit, self.current(), self.stream, group, one)
            # Where nobody parts, nobody may wait for this rank. At exit all ends by itself.
            weakref.finalize(self, self.link.abort).atexit = False

    def disconnect(self) -> None:
        """Part from the other ranks, which all do so together. Idempotent."""
        if self.link is not None:
            self.link.close()
            self.link = None

    def interrupt(self) -> None:
        """End all waiting for other ranks with an error. From any thread."""
        if (link := self.link) is not None:
            link.abort()

    def progress(self) -> int:
        """A number that grows while work is done. From any thread."""
        return self.counters["graphs"] + self.counters["launches"]

    def _linked(self, launch: Launch) -> Nccl:
        if self.link is None:
            raise ValueError(
                f"[{launch.kernel.name}] this device is not connected to other ranks: see connect()"
            )
        return self.link


class CudaStagingBuffer:
    """Bytes in pinned memory and the same on the device, one copy apart."""

    def __init__(self, device: CudaDevice, nbytes: int) -> None:
        self._device = device
        with device.current(), naming("staging_buffer"):
            self.host = pinned(device.cupy, nbytes)
        self.host[:] = 0
        self.device = device.empty((nbytes,), np.uint8)

    def send(self, nbytes: int) -> None:
        runtime = self._device.cupy.cuda.runtime
        ends = (self.device.data.ptr, self.host.ctypes.data)
        with self._device.current(), naming("staging_buffer"):
            self._copy(*ends, nbytes, runtime.memcpyHostToDevice)
        self._device.counters["uploads"] += 1

    def receive(self, nbytes: int) -> None:
        runtime = self._device.cupy.cuda.runtime
        ends = (self.host.ctypes.data, self.device.data.ptr)
        with self._device.current(), naming("staging_buffer"):
            self._copy(*ends, nbytes, runtime.memcpyDeviceToHost)
        self._device.wait()
        self._device.counters["downloads"] += 1

    def _copy(self, to: int, source: int, nbytes: int, way: int) -> None:
        if not 0 <= nbytes <= len(self.host):
            raise ValueError(f"[staging_buffer] {nbytes} of {len(self.host)} bytes")
        stream = self._device.stream
        self._device.cupy.cuda.runtime.memcpyAsync(to, source, nbytes, way, stream.ptr)


def _must_be_contiguous(array: Any, action: str) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"[{action}] an array of shape {array.shape} that is not contiguous")
