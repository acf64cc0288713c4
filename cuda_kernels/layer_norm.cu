// The contract is nanocupy/kernels/layer_norm/__init__.py. A block a row; a thread takes every THREADS-th
// four elements of it, three times: for the mean, for the squares, and for the result.
#include "rows.cuh"

// No __restrict__: out may be x.
template <int THREADS>
__global__ void layer_norm(float* out, const float* x, const float* weight, const float* bias,
                           const i64* rows, int size, float eps, i64 x_stride) {
  const i64 row = blockIdx.x;
  if (row >= *rows) return;
  x += row * x_stride;
  out += row * size;
  float sum = 0;
  for (int i = 4 * threadIdx.x; i < size; i += 4 * THREADS) {
    const Four<float> values = load_four(x + i, size - i);
#pragma unroll
    for (int j = 0; j < 4; j++) sum += values.at[j];
  }
  const float mean = block_sum<THREADS>(sum) / size;
  float squares = 0;
  for (int i = 4 * threadIdx.x; i < size; i += 4 * THREADS) {
    const Four<float> values = load_four(x + i, size - i);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float apart = i + j < size ? values.at[j] - mean : 0;
      squares = fmaf(apart, apart, squares);
    }
  }
  const float scale = 1 / sqrtf(block_sum<THREADS>(squares) / size + eps);
  for (int i = 4 * threadIdx.x; i < size; i += 4 * THREADS) {
    const Four<float> values = load_four(x + i, size - i);
    const Four<float> weights = load_four(weight + i, size - i);
    const Four<float> biases = load_four(bias + i, size - i);
    Four<float> result;
#pragma unroll
    for (int j = 0; j < 4; j++)
      result.at[j] = (values.at[j] - mean) * scale * weights.at[j] + biases.at[j];
    store_four(out + i, result, size - i);
  }
}
