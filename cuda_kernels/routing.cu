// The contract is nanocupy/kernels/routing/__init__.py. Vectors along grid x: a warp each; a row has `vectors`.
#include "common.cuh"

// Where a vector starts, or nullptr past the last row.
__device__ __forceinline__ const float* vector_of(const float* x, const i64* rows, int vectors,
                                                  int size, i64 x_stride) {
  const i64 row = blockIdx.x / vectors;
  if (row >= *rows) return nullptr;
  return x + row * x_stride + i64(blockIdx.x % vectors) * size;
}

__global__ void softmax(float* __restrict__ out, const float* __restrict__ x,
                        const i64* __restrict__ rows, int vectors, int size, i64 x_stride) {
  const float* from = vector_of(x, rows, vectors, size, x_stride);
  if (!from) return;
  float* to = out + i64(blockIdx.x) * size;
  float top = -__int_as_float(0x7f800000), total = 0;
  for (int i = threadIdx.x; i < size; i += WARP) top = fmaxf(top, from[i]);
  top = warp_max(top);
  for (int i = threadIdx.x; i < size; i += WARP) total += expf(from[i] - top);
  total = warp_sum(total);
  for (int i = threadIdx.x; i < size; i += WARP) to[i] = expf(from[i] - top) / total;
}

// NaN after all numbers.
__device__ __forceinline__ bool below(float a, float b) { return a < b || (b != b && a == a); }

__global__ void argsort(int* __restrict__ out, const float* __restrict__ x,
                        const i64* __restrict__ rows, int vectors, int size, i64 x_stride) {
  const float* from = vector_of(x, rows, vectors, size, x_stride);
  if (!from) return;
  for (int i = threadIdx.x; i < size; i += WARP) {
    int rank = 0;
    for (int j = 0; j < size; j++)
      rank += below(from[j], from[i]) || (j < i && !below(from[i], from[j]));
    out[i64(blockIdx.x) * size + rank] = i;
  }
}

__global__ void take_along(float* __restrict__ out, const float* __restrict__ x,
                           const int* __restrict__ index, const i64* __restrict__ rows, int vectors,
                           int size, int count, i64 x_stride, i64 index_stride) {
  const float* from = vector_of(x, rows, vectors, size, x_stride);
  if (!from) return;
  const int* wanted =
      index + blockIdx.x / vectors * index_stride + i64(blockIdx.x % vectors) * count;
  for (int i = threadIdx.x; i < count; i += WARP) {
    const int at = wanted[i];
    out[i64(blockIdx.x) * count + i] = at >= 0 && at < size ? from[at] : nanf("");
  }
}

// Vectors are [count, inner] here, and count goes.
__global__ void sum_axis(float* __restrict__ out, const float* __restrict__ x,
                         const i64* __restrict__ rows, int vectors, int count, int inner,
                         i64 x_stride) {
  const float* from = vector_of(x, rows, vectors, count * inner, x_stride);
  if (!from) return;
  for (int i = threadIdx.x; i < inner; i += WARP) {
    float sum = 0;
    for (int c = 0; c < count; c++) sum += from[i64(c) * inner + i];
    out[i64(blockIdx.x) * inner + i] = sum;
  }
}
