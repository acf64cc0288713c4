// The contract is nanocupy/kernels/columns/__init__.py.
#include "common.cuh"

// out[row, to[j]] = x[row, from[j]]. Blocks: rows along grid x, columns along y.
__global__ void move_columns(unsigned* __restrict__ out, const unsigned* __restrict__ x,
                             const int* __restrict__ from, const int* __restrict__ to,
                             const i64* __restrict__ rows, int count, i64 x_stride,
                             i64 out_stride) {
  const i64 row = blockIdx.x;
  const int j = blockIdx.y * blockDim.x + threadIdx.x;
  if (row < *rows && j < count) out[row * out_stride + to[j]] = x[row * x_stride + from[j]];
}
