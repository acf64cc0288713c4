"""The emulator itself: CUDA C++ under g++, a fiber a thread. What no GPU would do is an error."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from device.needs import needs_compiler
from nanocupy.device.cuda.sources import kernel_folder
from nanocupy.device.emulated import build
from nanocupy.device.protocols import KernelError

pytestmark = needs_compiler

SOURCE = """
#include "common.cuh"
#include <mma.h>
using namespace nvcuda;

__global__ void indices(int* out) {
  int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
__global__ void sums(float* out, const float* x) {
  out[threadIdx.x] = block_sum<96>(x[threadIdx.x]);
}
__global__ void shuffles(int* out) {
  int lane = threadIdx.x, i = 0;
  out[32 * i++ + lane] = __shfl_sync(~0u, lane, 5);
  out[32 * i++ + lane] = __shfl_sync(~0u, lane, 3, 8);
  out[32 * i++ + lane] = __shfl_xor_sync(~0u, lane, 6);
  out[32 * i++ + lane] = __shfl_down_sync(~0u, lane, 4, 16);
  out[32 * i++ + lane] = __shfl_up_sync(~0u, lane, 4, 16);
  out[32 * i++ + lane] = __ballot_sync(~0u, lane % 3 == 0);
  out[32 * i++ + lane] = __reduce_max_sync(~0u, lane ^ 21);
  if (lane % 2) out[32 * i + lane] = __reduce_add_sync(0xaaaaaaaau, lane);
  else out[32 * i + lane] = __any_sync(0x55555555u, lane == 4) + __all_sync(0x55555555u, lane == 4);
}
__global__ void votes(int* out) {
  int odd = threadIdx.x % 2;
  int any = __syncthreads_or(odd), all = __syncthreads_and(odd);
  out[threadIdx.x] = __syncthreads_count(odd) + 100 * any + 1000 * all;
}
template <class T> __global__ void round_trip(T* out, const float* x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = from_float<T>(x[i]);
}
template <class T> __global__ void widen(float* out, const T* x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = to_float(x[i]);
}
template <class T> __global__ void product(float* out, const T* a, const T* b) {
  wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> left;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major> right;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
  wmma::fill_fragment(sum, 1.0f);
  wmma::load_matrix_sync(left, a, 16);
  wmma::load_matrix_sync(right, b, 16);
  wmma::mma_sync(sum, left, right, sum);
  wmma::store_matrix_sync(out, sum, 16, wmma::mem_col_major);
}
__global__ void counted(int* count, float* sum, int* most) {
  atomicAdd(count, 1);
  atomicAdd(sum, 0.5f);
  atomicMax(most, (int)(blockIdx.x * blockDim.x + threadIdx.x));
}
__global__ void fresh_shared(float* out) {
  DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[threadIdx.x];
  __syncthreads();
  shared[threadIdx.x] = 1;
}
__global__ void numbers(int* out, float scale, i64 wide) {
  out[0] = scale == 0.5f && wide == (i64)1 << 40;
}

__global__ void missed_barrier() {
  if (threadIdx.x < 8) __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x < 8) __syncthreads();
  else __syncthreads();
}
__global__ void missed_shuffle(int* out) {
  if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(~0u, 1, 0);
}
__global__ void outside_mask(int* out) {
  out[threadIdx.x] = __shfl_sync(0xffu, 1, 0);
}
__global__ void reads_outside_mask(int* out) {
  if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xffu, 1, 9);
}
__global__ void two_operations(int* out) {
  if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(~0u, 1, 0);
  else __syncwarp();
}
__global__ void crooked(float* out, const f16* x) {
  wmma::fragment<wmma::matrix_a, 16, 16, 16, f16, wmma::row_major> left;
  wmma::load_matrix_sync(left, x + 1, 16);
}
__global__ void trap() { __trap(); }
"""
KERNELS = (
    "indices", "sums", "shuffles", "votes", "round_trip<f16>", "round_trip<bf16>", "widen<f16>",
    "widen<bf16>", "product<f16>", "product<bf16>", "counted", "fresh_shared", "numbers",
    "missed_barrier", "two_barriers", "missed_shuffle", "outside_mask", "reads_outside_mask",
    "two_operations", "crooked", "trap",
)  # fmt: skip
DTYPES = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
ORDERS = (0, 1, 2)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> build.Library:
    made = build.compile(SOURCE, "test.cu", KERNELS, [str(kernel_folder())])
    path = tmp_path_factory.mktemp("kernels") / "test.so"
    path.write_bytes(made)
    return build.Library(path)


def run(
    library: build.Library, name: str, *args: Any, grid: int = 1, block: Any = 32, **how: Any
) -> None:
    values = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in args]
    size = block if isinstance(block, tuple) else (block, 1, 1)
    library.launch(KERNELS.index(name), (grid, 1, 1), size, values, **how)


def aligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 64, np.uint8)
    out = raw[-raw.ctypes.data % 64 :][: array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


def test_signatures(library: build.Library) -> None:
    assert library.kernels == len(KERNELS)
    assert library.signature(KERNELS.index("numbers")) == "pfl"
    assert library.signature(KERNELS.index("round_trip<f16>")) == "ppi"
    assert library.signature(KERNELS.index("trap")) == ""


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_every_block(library: build.Library, order: int) -> None:
    out = np.full(2 * 3 * 4 * 30, -1, np.int32)
    at = KERNELS.index("indices")
    pointer = ctypes.c_void_p(out.ctypes.data)
    library.launch(at, (2, 3, 4), (5, 3, 2), [pointer], order=order)
    assert (out == [1000 * (i // 30) + i % 30 for i in range(len(out))]).all()


def test_libraries_share_the_stacks_of_threads(library: build.Library, tmp_path: Path) -> None:
    """A process may have 65,530 mappings: a library for every generated kernel, each with two for
    each of its threads, is too many."""

    def mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    code, out = Path(library._library._name).read_bytes(), np.zeros(512, np.int32)
    run(library, "votes", out, block=512)
    before = mappings()
    for n in range(4):
        path = tmp_path / f"{n}.so"
        path.write_bytes(code)
        out[:] = 0
        run(build.Library(path), "votes", out, block=512)
        assert (out == 256 + 100).all()
    assert mappings() < before + 100


@pytest.mark.parametrize("order", ORDERS)
def test_a_sum_over_a_block(library: build.Library, order: int) -> None:
    x, out = np.arange(96, dtype=np.float32), np.zeros(96, np.float32)
    run(library, "sums", out, x, block=96, order=order)
    assert (out == x.sum()).all()


@pytest.mark.parametrize("order", ORDERS)
def test_warp_operations(library: build.Library, order: int) -> None:
    out, lane = np.zeros((8, 32), np.int32), np.arange(32)
    run(library, "shuffles", out, order=order)
    inside = lane % 16 + 4 < 16
    want = [
        np.full(32, 5), lane // 8 * 8 + 3, lane ^ 6, np.where(inside, lane + 4, lane),
        np.where(lane % 16 >= 4, lane - 4, lane),
        np.full(32, sum(1 << i for i in range(0, 32, 3)) - (1 << 32) * (31 % 3 == 0)),
        np.full(32, 31), np.where(lane % 2, sum(range(1, 32, 2)), 1),
    ]  # fmt: skip
    for row, expected in zip(out, want, strict=True):
        assert (row == expected).all()


def test_votes_of_a_block(library: build.Library) -> None:
    out = np.zeros(70, np.int32)
    run(library, "votes", out, block=70)
    assert (out == 35 + 100).all()


@pytest.mark.parametrize("name", DTYPES)
def test_sixteen_bits_round_as_numpy_does(library: build.Library, name: str) -> None:
    """Every value there is, and the middles between neighbours."""
    dtype = DTYPES[name]
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    wide = np.zeros(1 << 16, np.float32)
    run(library, f"widen<{name}>", wide, every, ctypes.c_int32(1 << 16), grid=128, block=512)
    assert np.array_equal(wide, every.astype(np.float32), equal_nan=True)
    finite = np.sort(wide[np.isfinite(wide)])
    middles = (finite[1:].astype(np.float64) + finite[:-1]) / 2
    x = np.concatenate([wide, middles.astype(np.float32)])
    out = np.zeros(len(x), dtype)
    run(library, f"round_trip<{name}>", out, x, ctypes.c_int32(len(x)), grid=256, block=512)
    with np.errstate(all="ignore"):
        want = x.astype(dtype)
    assert np.array_equal(out, want, equal_nan=True)


@pytest.mark.parametrize(("name", "order"), [*itertools.product(DTYPES, ORDERS)])
def test_a_product_on_a_warp(library: build.Library, name: str, order: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (aligned(rng.standard_normal((16, 16)).astype(DTYPES[name])) for _ in range(2))
    out = aligned(np.zeros((16, 16), np.float32))
    run(library, f"product<{name}>", out, a, b, order=order)
    want = 1 + a.astype(np.float64) @ b.astype(np.float64).T
    np.testing.assert_allclose(out.T, want, rtol=1e-5, atol=1e-5)


def test_atomics(library: build.Library) -> None:
    count, most, total = np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32)
    run(library, "counted", count, total, most, grid=5, block=64, order=2)
    assert (count, total, most) == (320, 160, 319)


def test_shared_memory_is_nan_in_every_block(library: build.Library) -> None:
    out = np.zeros(96, np.float32)
    run(library, "fresh_shared", out, grid=3, shared=128)
    assert np.isnan(out).all()


def test_numbers_arrive_whole(library: build.Library) -> None:
    out = np.zeros(1, np.int32)
    run(library, "numbers", out, ctypes.c_float(0.5), ctypes.c_int64(1 << 40))
    assert out[0] == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missed_barrier", "other threads have returned"),
        ("two_barriers", "different barriers"),
        ("missed_shuffle", "0xffffffff that never come"),
        ("outside_mask", "the calling lane is not in mask 0xff"),
        ("reads_outside_mask", "reads lane 9, which is not in mask 0xff"),
        ("two_operations", "wait in __s"),
        ("crooked", "not a multiple of 32 bytes"),
        ("trap", "__trap (block 0,0,0, thread 0)"),
    ],
)
def test_what_no_gpu_would_do(library: build.Library, name: str, message: str) -> None:
    args = [aligned(np.zeros(512, np.int32)) for _ in library.signature(KERNELS.index(name))]
    with pytest.raises(KernelError) as error:
        run(library, name, *args)
    assert message in str(error.value)
    test_numbers_arrive_whole(library)  # the next launch is as good as any


def test_a_message_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(build.CompileError, match=r"here\.cu:2:.*wrong"):
        build.compile("\n__global__ void k() { wrong; }", "here.cu", ["k"], [])
