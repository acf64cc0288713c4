// Few lines times an affine weight, on CUDA cores: y[r, n] = sum over k of x[r, k] * w[n, k].
#pragma once
#include "affine.cuh"
#include "lines.cuh"

// out f32 [.., n] with rows out_stride apart; x [.., k]; codes [n, k*BITS/32]; scales, biases
// [n, k/group]. A block takes OUTS * WARPS outputs along grid x and ROWS lines along grid y.
//
// A lane takes 16 bytes of codes of each of its outputs, then the next 512 bytes on. Inside a group
// sum(x * w) = STEPS * scale * (sum(x * fraction) - sum(x) / 2) + bias * sum(x).
// The order of a row's sums depends on k alone.
template <class T, class S, int BITS, int ROWS, class LINES>
__device__ __forceinline__ void affine_product(float* __restrict__ out, const T* __restrict__ x,
                                               const unsigned* __restrict__ codes,
                                               const S* __restrict__ scales,
                                               const S* __restrict__ biases, const LINES& lines,
                                               int n, int k, int group, i64 x_stride,
                                               i64 out_stride) {
  const i64 first_row = i64(blockIdx.y) * ROWS, last_row = lines.count - 1;
  const int lane = threadIdx.x % WARP, log_group = __ffs(group) - 1;
  const int first = (blockIdx.x * WARPS + threadIdx.x / WARP) * OUTS;
  if (first_row > last_row || first >= n) return;

  // Past the end, the last row or output is computed again and not written.
  const T* in[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const i64 row = first_row + r < last_row ? first_row + r : last_row;
    in[r] = x + lines.in(row) * x_stride;
  }
  i64 output[OUTS];
#pragma unroll
  for (int o = 0; o < OUTS; o++) output[o] = first + o < n ? first + o : n - 1;

  float total[ROWS][OUTS] = {};
  for (int at = lane * CHUNK<BITS>; at < k; at += WARP * CHUNK<BITS>) {
    Pack<unsigned> words[OUTS];
    float scale[OUTS], bias[OUTS];
#pragma unroll
    for (int o = 0; o < OUTS; o++) {
      words[o] = load_pack(codes + (output[o] * k + at) / (32 / BITS));
      const i64 g = output[o] * (k >> log_group) + (at >> log_group);
      scale[o] = to_float(scales[g]) * STEPS<BITS>;
      bias[o] = to_float(biases[g]);
    }
    float dot[ROWS][OUTS] = {}, sum[ROWS] = {};
#pragma unroll
    for (int part = 0; part < CHUNK<BITS>; part += 8) {
      float fraction[OUTS][8];
#pragma unroll
      for (int o = 0; o < OUTS; o++) unpack<BITS>(words[o].at + part * BITS / 32, fraction[o]);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int i = 0; i < 8; i += Pack<T>::size) {
          const Pack<T> pack = load_pack(in[r] + at + part + i);
#pragma unroll
          for (int j = 0; j < Pack<T>::size; j++) {
            const float value = to_float(pack.at[j]);
            sum[r] += value;
#pragma unroll
            for (int o = 0; o < OUTS; o++) dot[r][o] = fmaf(value, fraction[o][i + j], dot[r][o]);
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int o = 0; o < OUTS; o++) {
        total[r][o] = fmaf(scale[o], fmaf(-0.5f, sum[r], dot[r][o]), total[r][o]);
        total[r][o] = fmaf(bias[o], sum[r], total[r][o]);
      }
    }
  }

#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int o = 0; o < OUTS; o++) {
      const float y = warp_sum(total[r][o]);
      if (lane == 0 && first_row + r <= last_row && first + o < n)
        out[lines.out(first_row + r) * out_stride + first + o] = y;
    }
  }
}
