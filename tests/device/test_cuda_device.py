"""The CUDA device on the emulated GPU: memory, launches, graphs, the cache, and every error."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.needs import needs_compiler
from nanocupy.device.cuda import sources, toolkit, upload
from nanocupy.device.cuda.graph import capture
from nanocupy.device.cuda.limits import stream_gbs
from nanocupy.device.emulated import EmulatedDevice, build
from nanocupy.device.emulated.errors import CUDADriverError, CUDARuntimeError, NVRTCError
from nanocupy.device.protocols import KernelError, Launch
from nanocupy.dtypes import C_TYPES, FLOATS
from nanocupy.kernels.kernel import GEMM

pytestmark = needs_compiler

SOURCE = """
#include "common.cuh"

template <class T> __global__ void add(T* x, const i64* rows, int width, float by) {
  if (blockIdx.x >= *rows) return;
  T* row = x + blockIdx.x * i64(width);
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    row[i] = from_float<T>(to_float(row[i]) + by);
}

__global__ void reverse(float* x, int size) {
  DYNAMIC_SHARED(memory);
  float* kept = reinterpret_cast<float*>(memory);
  for (int i = threadIdx.x; i < size; i += blockDim.x) kept[i] = x[size - 1 - i];
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += blockDim.x) x[i] = kept[i];
}

__global__ void meet_or_not(float* x) {
  if (threadIdx.x) __syncthreads();
  x[threadIdx.x] = 1;
}

__global__ void last_thread_wins(int* x) { *x = threadIdx.x; }
"""


@dataclass(frozen=True)
class Kernel:
    """As `kernels.kernel.CudaKernel`, of the file above."""

    expression: str
    file: str = "test"

    @property
    def name(self) -> str:
        return self.expression.partition("<")[0]


ADD = Kernel("add<float>")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kernels of our own, and a cache of our own, for all tests of this file."""
    folder, patch = tmp_path_factory.mktemp("kernels"), pytest.MonkeyPatch()
    (folder / "common.cuh").write_text((sources.kernel_folder() / "common.cuh").read_text())
    (folder / "test.cu").write_text(SOURCE)
    patch.setattr(sources, "kernel_folder", lambda: folder)
    patch.setenv("NANOCUPY_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield folder
    patch.undo()


@pytest.fixture(params=[False, True], ids=["at once", "late"])
def device(request: pytest.FixtureRequest) -> EmulatedDevice:
    return EmulatedDevice(late=request.param)


def add(device: Any, x: Any, by: float = 1, rows: int | None = None) -> Launch:
    """Add a number to the first rows of x [rows, width]."""
    count = device.asarray(np.array([x.shape[0] if rows is None else rows], np.int64))
    kernel = Kernel(f"add<{C_TYPES[x.dtype]}>")
    args = (x, count, np.int32(x.shape[1]), np.float32(by))
    return Launch(kernel, args, (x.shape[0], 1, 1), 32)


def reverse(x: Any, shared: int | None = None) -> Launch:
    return Launch(Kernel("reverse"), (x, np.int32(x.size)), (1, 1, 1), 64, shared or x.nbytes)


# ---- memory


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=4),
    chunk=st.sampled_from([64, 256]),
    late=st.booleans(),
)
def test_arrays_of_any_size_arrive(sizes: list[int], chunk: int, late: bool) -> None:
    """In many chunks through two buffers: none is filled again before it was read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "CHUNK", chunk)
        patch.setattr(upload, "PART", 16)
        device = EmulatedDevice(late=late)
        sources = [np.random.default_rng(n).integers(0, 256, n).astype(np.uint8) for n in sizes]
        arrays = [device.asarray(source) for source in sources]
        for source, array in zip(sources, arrays, strict=True):
            assert np.array_equal(device.read(array), source)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, bool])
def test_every_dtype_and_layout(device: EmulatedDevice, dtype: Any) -> None:
    host = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for array in (host, host.transpose(2, 0, 1), host[:, ::2], host[1, 2, 3], host[:0]):
        assert device.read(device.asarray(array)).tobytes() == array.tobytes()
        assert device.asarray(array).dtype == host.dtype


def test_two_chunks_of_an_upload_travel_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "CHUNK", 64)
    device = EmulatedDevice(late=True)
    device.read(device.empty((1,), np.uint8))
    for chunks, travelling in ((2, 2), (1, 2), (5, 2)):
        kept = device.asarray(np.zeros(64 * chunks, np.uint8))
        assert len(device.gpu._waiting) == travelling
    assert not device.read(kept).any()


def test_a_mapped_file_is_uploaded(device: EmulatedDevice, tmp_path: Path) -> None:
    np.arange(5000, dtype=np.int32).tofile(tmp_path / "file")
    mapped = np.memmap(tmp_path / "file", np.int32, "r")
    assert np.array_equal(device.read(device.asarray(mapped)), mapped)


def test_the_source_of_an_upload_may_change_at_once(device: EmulatedDevice) -> None:
    host = np.ones(1000, np.float32)
    array = device.asarray(host)
    host[:] = 2
    assert (device.read(array) == 1).all()


def test_empty_is_zero_and_fresh_memory_is_poison(device: EmulatedDevice) -> None:
    assert not device.read(device.empty((5, 7), np.float32)).any()
    assert np.isnan(device.read(device.memory.uninitialized((5, 7), np.float32))).all()


def test_views_share_memory(device: EmulatedDevice) -> None:
    whole = device.empty((64,), np.uint8)
    part = whole[16:48].view(np.float32).reshape(2, 4)
    device.write(part, np.arange(8, dtype=np.float32).reshape(2, 4))
    assert part.data.ptr == whole.data.ptr + 16
    assert device.read(whole)[16:48].view(np.float32).tolist() == list(range(8))


def test_writes_and_reads_that_do_not_fit_are_refused(device: EmulatedDevice) -> None:
    array = device.empty((4, 6), np.float32)
    for wrong in (np.zeros((6, 4), np.float32), np.zeros((4, 6), np.int32)):
        with pytest.raises(ValueError, match=r"\[write\]"):
            device.write(array, wrong)
    with pytest.raises(ValueError, match=r"\[write\].*contiguous"):
        device.write(array[:, 1], np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"\[read\].*contiguous"):
        device.read(array[:, 1])
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(array)


def test_memory_is_counted(device: EmulatedDevice) -> None:
    before, free = device.memory_active(), device.memory_free()
    assert device.memory_total() - free >= before
    array = device.empty((1000, 10), np.float32)
    used = device.memory_active() - before
    assert 40_000 <= used < 41_000
    assert device.memory_free() == free - used
    part = array[5:]
    del array
    assert device.memory_active() == before + used
    del part
    assert device.memory_active() == before
    assert device.memory_free() == free


def test_a_device_that_is_gone_holds_nothing() -> None:
    device = EmulatedDevice()
    device.capture([add(device, device.empty((2, 2), np.float32))]).run()
    gpu, library = device.gpu, device._blas._library
    assert library._handles
    del device
    gc.collect()
    assert gpu.reserved == 0 and not gpu.device._starts and not gpu.pinned._starts
    assert not library._handles and not gpu.streams


def test_out_of_memory_says_what_to_do() -> None:
    device = EmulatedDevice(memory=16 << 20)
    kept = device.empty((1 << 20,), np.uint8)
    with pytest.raises(MemoryError, match=r"no memory for 20,971,520 bytes.*--gpu-memory-util"):
        device.empty((20 << 20,), np.uint8)
    assert not device.read(kept).any()
    for _ in range(5):  # what is freed is there for others, of any size
        device.empty((5 << 20,), np.uint8)
        device.empty((3 << 20,), np.uint8)


def test_a_staging_buffer_is_one_copy_each_way(device: EmulatedDevice) -> None:
    box = device.staging_buffer(1001)
    assert not box.host.any() and not device.read(box.device).any()
    box.host[:] = 7
    box.send(500)
    box.receive(1001)
    assert (box.host[:500] == 7).all() and not box.host[500:].any()
    assert device.counters == {"uploads": 1, "downloads": 1}
    for wrong in (1002, -1):
        with pytest.raises(ValueError, match=r"\[staging_buffer\]"):
            box.send(wrong)
        with pytest.raises(ValueError, match=r"\[staging_buffer\]"):
            box.receive(wrong)


def test_a_late_gpu_reads_a_staging_buffer_late() -> None:
    """What makes it a test of whoever writes to a staging buffer too early."""
    device = EmulatedDevice(late=True)
    box = device.staging_buffer(4)
    box.host[:] = 1
    box.send(4)
    box.host[:] = 2
    assert device.read(box.device).tolist() == [2] * 4


def test_copies_within_the_gpu(device: EmulatedDevice) -> None:
    """Which is how its bandwidth is measured."""
    assert stream_gbs(device, nbytes=1 << 16, repeats=2) > 0
    x, y = device.asarray(np.arange(9)), device.empty((9,), np.int64)
    runtime = device.cupy.cuda.runtime
    way = runtime.memcpyDeviceToDevice
    runtime.memcpyAsync(y.data.ptr, x.data.ptr, x.nbytes, way, device.stream.ptr)
    assert device.read(y).tolist() == list(range(9))


# ---- launches and graphs


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_captured_is_eager(device: EmulatedDevice, dtype: Any) -> None:
    x = device.asarray(np.zeros((3, 40), dtype))
    launches = [add(device, x, by, 2) for by in (1, 2, 0.5)]
    graph = device.capture(launches)
    assert not device.read(x).any(), "capturing runs nothing"
    graph.run()
    graph.run()
    captured = device.read(x)
    device.write(x, np.zeros((3, 40), dtype))
    for _ in range(2):
        device.eager(launches).run()
    assert captured.tobytes() == device.read(x).tobytes()
    assert (captured[:2] == 7).all() and not captured[2].any()
    assert device.counters == {"graphs": 2, "launches": 6}


def test_a_graph_sees_what_its_buffers_hold(device: EmulatedDevice) -> None:
    box, x = device.staging_buffer(8), device.empty((4, 2), np.float32)
    count = box.device.view(np.int64)
    graph = device.capture([add(device, x)._replace(args=(x, count, np.int32(2), np.float32(1)))])
    for rows in (0, 3, 1):
        box.host.view(np.int64)[0] = rows
        box.send(8)
        graph.run()
        box.receive(8)
    assert device.read(x)[:, 0].tolist() == [2, 1, 1, 0]


def test_a_graph_keeps_its_arrays(device: EmulatedDevice) -> None:
    before = device.memory_active()
    graph = device.capture([add(device, device.empty((2, 2), np.float32))])
    gc.collect()
    graph.run()
    assert device.read(graph.launches[0].args[0]).tolist() == [[1, 1], [1, 1]]
    del graph
    assert device.memory_active() == before


def test_an_empty_graph(device: EmulatedDevice) -> None:
    device.capture([]).run()
    device.eager([]).run()


def test_more_shared_memory_than_48_kb(device: EmulatedDevice) -> None:
    for size in (100, 16_000, 25_344):
        x = device.asarray(np.arange(size, dtype=np.float32))
        device.capture([reverse(x)]).run()
        device.eager([reverse(x), reverse(x)]).run()
        assert device.read(x).tolist() == list(range(size))[::-1]
    device.capture([reverse(x, 120), reverse(x, 100 << 10)][:1])
    with pytest.raises(KernelError, match=r"\[reverse\] 102,400 bytes of shared memory"):
        device.capture([reverse(x, 100 << 10)])


def test_the_order_of_threads_can_be_chosen() -> None:
    device = EmulatedDevice(order=1)
    x = device.empty((1,), np.int32)
    graph = device.capture([Launch(Kernel("last_thread_wins"), (x,), block=8)])
    seen = []
    for device.order, device.seed in ((1, 1), (0, 1), *((2, seed) for seed in range(8))):
        graph.run()
        seen.append(int(device.read(x)[0]))
    assert seen[:2] == [0, 7] and len(set(seen[2:])) > 1
    assert (device.order, device.seed) == (2, 7)


def test_a_fault_names_the_kernel() -> None:
    device = EmulatedDevice()
    x = device.empty((32, 2), np.float32)
    fault = Launch(Kernel("meet_or_not"), (x,), block=32)
    for graph in (device.capture([add(device, x), fault]), device.eager([fault])):
        with pytest.raises(KernelError, match=r"\[meet_or_not\].*__syncthreads"):
            graph.run()
    late = EmulatedDevice(late=True)
    box = late.staging_buffer(4)
    late.eager([fault._replace(args=(late.empty((32,), np.float32),))]).run()
    with pytest.raises(KernelError, match=r"\[meet_or_not\]"):
        box.receive(4)


BAD_ARGUMENTS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "a Python float": (3, lambda x: 1.5),
    "a Python int": (2, lambda x: 2),
    "a bool": (2, lambda x: True),
    "a double": (3, lambda x: np.float64(1)),
    "a short": (2, lambda x: np.int16(1)),
    "None": (0, lambda x: None),
    "a NumPy array": (0, lambda x: np.zeros((2, 2), np.float32)),
    "columns": (0, lambda x: x[:, :1]),
    "another GPU's": (0, lambda x: EmulatedDevice().empty((2, 2), np.float32)),
}


@pytest.mark.parametrize("bad", BAD_ARGUMENTS)
def test_arguments_that_would_be_misread_are_refused(device: EmulatedDevice, bad: str) -> None:
    launch = add(device, device.empty((2, 2), np.float32))
    index, make = BAD_ARGUMENTS[bad]
    args = [*launch.args]
    args[index] = make(args[0])
    for run in (device.capture, device.eager):
        with pytest.raises(TypeError, match=rf"\[add\] argument {index}"):
            run([launch._replace(args=tuple(args))])


@pytest.mark.parametrize(
    "change",
    [
        {"grid": (0, 1, 1)}, {"grid": (1, 65536, 1)}, {"grid": (1, 1, 65536)},
        {"grid": (2**31, 1, 1)}, {"block": 0}, {"block": 1025}, {"shared": 100 << 10},
    ],
    ids=str,
)  # fmt: skip
def test_sizes_out_of_bounds_are_refused(device: EmulatedDevice, change: Any) -> None:
    launch = add(device, device.empty((2, 2), np.float32))._replace(**change)
    with pytest.raises(KernelError, match=r"\[add\]"):
        device.capture([launch])


def test_a_kernel_of_another_device_is_refused(device: EmulatedDevice) -> None:
    from nanocupy.kernels.kernel import CpuKernel

    with pytest.raises(TypeError, match=r"\[add\].*not a CUDA kernel"):
        device.capture([Launch(CpuKernel("elementwise:add"), ())])


# ---- products


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 5, 3), (7, 16, 24)], ids=str)
def test_products(device: EmulatedDevice, dtype: Any, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    random = np.random.default_rng(0)
    x, w = (random.standard_normal((rows, k)).astype(dtype) for rows in (m, n))
    out = device.asarray(np.full((m, n + 3), 5, np.float32))
    launch = Launch(GEMM, (out, device.asarray(x), device.asarray(w), m, n, k, n + 3, False))
    again = launch._replace(args=(*launch.args[:-1], True))
    graph = device.capture([launch, again])
    assert (device.read(out) == 5).all(), "warming up touches no result"
    graph.run()
    want = 2 * (x.astype(np.float32) @ w.astype(np.float32).T)
    got = device.read(out)
    np.testing.assert_allclose(got[:, :n], want, rtol=1e-5, atol=1e-5)
    assert (got[:, n:] == 5).all()
    device.eager([launch, again]).run()
    assert device.read(out).tobytes() == got.tobytes()
    assert device.counters == {"graphs": 1, "launches": 2}


def test_products_out_of_bounds_are_refused(device: EmulatedDevice) -> None:
    def array(size: int, dtype: Any = np.float32) -> Any:
        return device.empty((size,), dtype)

    good = (array(6), array(8), array(12), 2, 3, 4, 3, False)
    device.capture([Launch(GEMM, good)]).run()
    for index, value in ((0, array(5)), (1, array(7)), (2, array(11)), (3, 3), (6, 2), (3, 0)):
        args = [*good]
        args[index] = value
        with pytest.raises(ValueError, match=r"\[gemm\]"):
            device.capture([Launch(GEMM, tuple(args))])
    for index, value in ((0, array(6, np.float16)), (1, array(8, np.float16)), (2, np.zeros(12))):
        args = [*good]
        args[index] = value
        with pytest.raises(TypeError, match=r"\[gemm\]"):
            device.eager([Launch(GEMM, tuple(args))])


def test_cublas_says_no_by_status(device: EmulatedDevice) -> None:
    args = [device.empty((size,), np.float32) for size in (6, 8, 12)]
    launch = Launch(GEMM, (*args, 2, 3, 4, 3, False))
    device._blas._call("cublasSetStream_v2", device._blas._handle, device.stream.ptr)
    with pytest.raises(KernelError, match=r"\[gemm\].*status 3"):  # it took the workspace away
        device.capture([launch])
    device._blas.close()
    device._blas.close()
    with pytest.raises(KernelError, match=r"\[gemm\].*status 1"):
        device.eager([launch]).run()


# ---- capture


FORBIDDEN: dict[str, Callable[[Any], Any]] = {
    "a new block": lambda d: d.empty((10_000_000,), np.uint8),
    "reading": lambda d: d.read(d.kept),
    "waiting for the stream": lambda d: d.cupy.cuda.runtime.streamSynchronize(d.stream.ptr),
    "a download": lambda d: d.box.receive(4),
    "pinned memory": lambda d: d.staging_buffer(100),
    "releasing memory": lambda d: d.memory_free(),
    "a module": lambda d: d._compiler.load([Kernel("last_thread_wins")]),
    "a graph": lambda d: d.graph.run(),
    "capturing": lambda d: d.capture([add(d, d.kept)]),
    "an attribute": lambda d: setattr(
        d._compiler[Kernel("reverse")], "max_dynamic_shared_size_bytes", 60_000
    ),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_breaks_a_capture(device: Any, name: str) -> None:
    """It raises, also where somebody swallows the error, and the stream is usable afterwards."""
    device.kept, device.box = device.empty((4, 1), np.float32), device.staging_buffer(4)
    device.graph = device.capture([add(device, device.kept), reverse(device.kept)])
    collecting = gc.isenabled()
    with pytest.raises((KernelError, CUDARuntimeError), match="when stream is capturing"):
        capture(device.cupy, device.stream, lambda: FORBIDDEN[name](device))
    assert gc.isenabled() == collecting

    def swallow() -> None:
        with pytest.raises(RuntimeError):
            FORBIDDEN[name](device)

    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        capture(device.cupy, device.stream, swallow)
    device.graph.run()
    device.capture([add(device, device.kept)]).run()
    assert (device.read(device.kept) == 2).all()


def test_memory_that_the_pool_has_may_be_taken_while_capturing(device: EmulatedDevice) -> None:
    kept = device.empty((5000,), np.uint8)
    del kept
    capture(device.cupy, device.stream, lambda: device.empty((4000,), np.uint8))


def test_a_capture_ends_after_any_exception(
    device: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = device.empty((2, 2), np.float32)
    args = [device.empty((size,), np.float32) for size in (6, 8, 12)]
    launches = [add(device, x), Launch(GEMM, (*args, 2, 3, 4, 3, False))]
    device.capture(launches)

    def interrupted(launch: Launch) -> None:
        assert not gc.isenabled(), "garbage may break a capture"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(device._blas, "gemm", interrupted)
        with pytest.raises(KeyboardInterrupt):
            device.capture(launches)
    assert gc.isenabled()
    device.capture(launches).run()
    assert (device.read(x) == 1).all()


def test_a_graph_does_not_run_on_memory_that_is_gone(device: EmulatedDevice) -> None:
    """The stand-in, like CUDA, keeps nothing alive: CudaGraph does."""
    x = device.empty((2, 2), np.float32)
    [call] = device.prepare([add(device, x)])
    graph = capture(device.cupy, device.stream, call)
    graph.launch(device.stream)
    device.read(x)
    del x, call
    with pytest.raises(RuntimeError, match="IllegalAddress"):
        graph.launch(device.stream)
        device.wait()


def test_a_fault_that_is_seen_late_says_how_to_find_it() -> None:
    device = EmulatedDevice(late=True)
    x = device.empty((2, 2), np.float32)
    [call] = device.prepare([add(device, x)])
    graph = capture(device.cupy, device.stream, call)
    del x, call
    device.wait()
    graph.launch(device.stream)
    with pytest.raises(KernelError, match=r"IllegalAddress.*CUDA_LAUNCH_BLOCKING"):
        device.wait()


def test_destroyed_things_do_not_work(device: EmulatedDevice) -> None:
    cuda = device.cupy.cuda
    stream = cuda.Stream(non_blocking=True)
    pointer = stream.ptr
    del stream
    array = device.empty((4,), np.uint8)
    for use in (
        lambda: cuda.runtime.memsetAsync(array.data.ptr, 0, 4, pointer),
        lambda: cuda.runtime.streamSynchronize(pointer),
    ):
        with pytest.raises(CUDARuntimeError, match="InvalidResourceHandle"):
            use()
    program = cuda.nvrtc.createProgram("", "x.cu", (), ())
    cuda.nvrtc.destroyProgram(program)
    with pytest.raises(NVRTCError, match="INVALID_PROGRAM"):
        cuda.nvrtc.compileProgram(program, ())
    with pytest.raises(CUDARuntimeError, match="IllegalAddress"):
        cuda.runtime.memcpyAsync(array.data.ptr + 1, array.data.ptr, 4, 1, device.stream.ptr)
    with pytest.raises(CUDARuntimeError, match="not capturing"):
        device.stream.end_capture()


# ---- the stand-in's kernels, called past the device's checks


@pytest.mark.parametrize(
    ("error", "args", "shared", "grid"),
    [
        (TypeError, lambda x: (x,), 0, 1),
        (TypeError, lambda x: (x, np.int32(1), np.int32(1)), 0, 1),
        (TypeError, lambda x: (x, 1), 0, 1),
        (TypeError, lambda x: (x, np.int64(1)), 0, 1),
        (TypeError, lambda x: (x, np.float32(1)), 0, 1),
        (TypeError, lambda x: (np.int64(1), np.int32(1)), 0, 1),
        (TypeError, lambda x: (x[::2], np.int32(1)), 0, 1),
        (CUDADriverError, lambda x: (x, np.int32(1)), (48 << 10) + 4, 1),
        (CUDADriverError, lambda x: (x, np.int32(1)), 0, 0),
    ],
)
def test_launches_that_cuda_would_not_run(error: Any, args: Any, shared: int, grid: int) -> None:
    device = EmulatedDevice()
    x = device.empty((4,), np.float32)
    device.prepare([reverse(x)])
    kernel = device._compiler[Kernel("reverse")]
    with pytest.raises(error):
        kernel.kernel((grid, 1, 1), (32,), args(x), shared, device.stream)
    with pytest.raises(CUDADriverError):
        kernel.max_dynamic_shared_size_bytes = 100 << 10


# ---- compiling, and the cache


def test_a_second_device_compiles_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path))
    ticks: list[tuple[int, int]] = []
    device = EmulatedDevice(tick=lambda *tick: ticks.append(tick))
    device.capture([reverse(device.empty((4,), np.float32))])
    assert ticks == [(0, 1), (1, 1)]

    def forbidden(*_: Any) -> bytes:
        raise AssertionError("compiled again")

    with monkeypatch.context() as patch:
        patch.setattr(build, "compile", forbidden)
        second = EmulatedDevice(tick=lambda *tick: ticks.append(tick))
        second.capture([reverse(second.empty((4,), np.float32))]).run()
    assert len(ticks) == 2
    [binary] = (tmp_path / "cuda").glob("*.cubin")
    assert (tmp_path / "cuda").stat().st_mode & 0o777 == 0o700
    for damaged in (binary, binary.with_suffix(".json")):
        damaged.unlink()  # some process may have it mapped
        damaged.write_bytes(b"\x7fELF")
        third = EmulatedDevice()
        third.capture([reverse(third.empty((4,), np.float32))]).run()
        assert len(damaged.read_bytes()) > 10, "made again"


def test_several_devices_at_once_compile_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path))
    compiled, real = [], build.compile

    def compile(*args: Any) -> bytes:
        compiled.append(args)
        return real(*args)

    monkeypatch.setattr(build, "compile", compile)

    def work() -> None:
        device = EmulatedDevice()
        device.capture([reverse(device.empty((4,), np.float32))]).run()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(compiled) == 1


def test_a_changed_source_or_header_is_another_kernel(folder: Path) -> None:
    text = '#include "changing.cuh"\n__global__ void change(int* x) { *x = 10 * HERE + THERE; }'
    for header, source in ((1, 1), (1, 2), (3, 2)):
        (folder / "changing.cuh").write_text(f"#define THERE {header}")
        (folder / "changing.cu").write_text(text.replace("HERE +", f"{source} +"))
        device = EmulatedDevice()
        x = device.empty((1,), np.int32)
        device.capture([Launch(Kernel("change", "changing"), (x,))]).run()
        assert device.read(x).tolist() == [10 * source + header]
    (folder / "changing.cuh").unlink()


def test_what_does_not_compile_is_shown(device: EmulatedDevice) -> None:
    for expression in ("add<nothing>", "no_such_kernel"):
        with pytest.raises(
            KernelError, match=rf"\[test.cu\] does not compile for {expression}.*\n"
        ):
            device.capture([Launch(Kernel(expression), ())])
    device.capture([add(device, device.empty((2, 2), np.float32))]).run()


def test_the_compiler_knows_its_options(device: EmulatedDevice) -> None:
    nvrtc = device.cupy.cuda.nvrtc
    program = nvrtc.createProgram("", "x.cu", (), ())
    with pytest.raises(NVRTCError, match="INVALID_OPTION"):
        nvrtc.compileProgram(program, ("-arch=sm_90",))
    with pytest.raises(NVRTCError, match="BEFORE_COMPILATION"):
        nvrtc.getCUBIN(program)
    nvrtc.destroyProgram(program)


# ---- without a GPU


def test_without_a_driver_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(toolkit.ctypes, "CDLL", nothing)
    monkeypatch.setattr(toolkit, "import_cupy", lambda: pytest.fail("CuPy is not needed for that"))
    assert toolkit.unavailable() == toolkit.NO_DRIVER
    with pytest.raises(RuntimeError, match=r"\[cuda\] no NVIDIA driver"):
        toolkit.real_toolkit()


@pytest.mark.parametrize(("status", "count"), [(100, 1), (0, 0)])
def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch, status: int, count: int) -> None:
    class Driver:
        def cuInit(self, flags: int) -> int:
            return status

        def cuDeviceGetCount(self, found: Any) -> int:
            found._obj.value = count
            return 0

    monkeypatch.setattr(toolkit.ctypes, "CDLL", lambda name: Driver())
    assert "finds no GPU" in (toolkit.unavailable() or "")


def test_an_old_gpu_is_refused() -> None:
    assert toolkit.check_capability("120") == 120
    with pytest.raises(RuntimeError, match=r"compute capability 7\.5"):
        toolkit.check_capability("75")


def test_without_a_compiler_the_emulator_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert "/no/such/compiler" in (build.unavailable() or "")
    with pytest.raises(RuntimeError, match=r"\[emulated\].*CXX"):
        EmulatedDevice()


def test_there_is_one_emulated_gpu(device: EmulatedDevice) -> None:
    assert (device.name, device.kind, device.capability) == ("emulated", "cuda", 80)
    assert device.multiprocessors == 4
    with pytest.raises(CUDARuntimeError, match="invalid device ordinal"):
        device.cupy.cuda.Device(1)
