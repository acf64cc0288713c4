// Rows of an affine weight by index.
#include "affine.cuh"

// out f32 [rows, k]: row tokens[r] of a table, rounded once. The weight [n, k] is its rows from
// `first` on; zeros for its other rows, NaN where it, of `vocabulary` rows, has no such row.
// A thread takes four values; blocks: rows along grid x, a row's parts along y.
template <class S, int BITS>
__global__ void affine_embedding(float* __restrict__ out, const unsigned* __restrict__ codes,
                                 const S* __restrict__ scales, const S* __restrict__ biases,
                                 const int* __restrict__ tokens, const i64* __restrict__ rows,
                                 int n, int k, int group, int first, int vocabulary) {
  const i64 row = blockIdx.x;
  const int at = (blockIdx.y * blockDim.x + threadIdx.x) * 4;
  if (row >= *rows || at >= k) return;
  const i64 token = tokens[row], from = token - first;
  const float other = token >= 0 && token < vocabulary ? 0.0f : nanf("");
  Pack<float> values = {{other, other, other, other}};
  if (from >= 0 && from < n) {
    const i64 g = from * (k / group) + at / group;
    const float scale = to_float(scales[g]), bias = to_float(biases[g]);
    const unsigned word = codes[(from * k + at) / (32 / BITS)] >> at * BITS % 32;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const unsigned code = word >> i * BITS & ((1 << BITS) - 1);
      values.at[i] = fmaf(float(code), scale, bias);
    }
  }
  store_pack(out + row * k + at, values);
}
