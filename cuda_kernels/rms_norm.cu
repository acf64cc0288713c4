// The contract is nanocupy/kernels/rms_norm/__init__.py. A block a vector; a thread takes every THREADS-th
// four elements of it, twice: for the sum and for the product, when they are in the cache.
#include "rows.cuh"

// out = x * weight / sqrt(mean(x^2) + eps), for one vector that this block's threads have written.
template <class OUT, int THREADS>
__device__ __forceinline__ void norm(OUT* out, const float* x, const float* weight, int size,
                                     float eps) {
  float squares = 0;
  for (int i = 4 * threadIdx.x; i < size; i += 4 * THREADS) {
    const Four<float> values = load_four(x + i, size - i);
#pragma unroll
    for (int j = 0; j < 4; j++) squares = fmaf(values.at[j], values.at[j], squares);
  }
  const float scale = 1 / sqrtf(block_sum<THREADS>(squares) / size + eps);
  for (int i = 4 * threadIdx.x; i < size; i += 4 * THREADS) {
    const Four<float> values = load_four(x + i, size - i);
    const Four<float> weights = load_four(weight + i, size - i);
    Four<float> result;
#pragma unroll
    for (int j = 0; j < 4; j++) result.at[j] = values.at[j] * scale * weights.at[j];
    store_four(out + i, result, size - i);
  }
}

// Vectors along grid y. No __restrict__: out may be x.
template <class OUT, int THREADS>
__global__ void rms_norm(OUT* out, const float* x, const float* weight, const i64* rows, int size,
                         int vectors, float eps, i64 x_stride, i64 out_stride) {
  const i64 row = blockIdx.x;
  if (row >= *rows) return;
  const i64 vector = i64(blockIdx.y) * size;
  out += row * out_stride + vector;
  norm<OUT, THREADS>(out, x + row * x_stride + vector, weight, size, eps);
}

// out_h = x + residual, out = rms_norm(out_h). No __restrict__: out_h may be an input.
template <class OUT, int THREADS>
__global__ void add_rms_norm(float* out_h, OUT* out, const float* x, const float* residual,
                             const float* weight, const i64* rows, int size, float eps) {
  const i64 row = blockIdx.x, start = row * size;
  if (row >= *rows) return;
  for (int i = 4 * threadIdx.x; i < size; i += 4 * THREADS) {
    Four<float> sum = load_four(x + start + i, size - i);
    const Four<float> more = load_four(residual + start + i, size - i);
#pragma unroll
    for (int j = 0; j < 4; j++) sum.at[j] += more.at[j];
    store_four(out_h + start + i, sum, size - i);
  }
  norm<OUT, THREADS>(out + start, out_h + start, weight, size, eps);
}
