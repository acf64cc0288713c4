// Many rows times an affine weight, on tensor cores: y[r, n] = sum over k of x[r, k] * w[n, k].
#include <mma.h>
#include "affine.cuh"

constexpr int FRAG = 16;  // a side of the matrices that tensor cores multiply
constexpr int WARPS = 4;  // in a block
constexpr int THREADS = WARPS * WARP;

// A block's warps stand side by side along the outputs, or, where there are few rows and time goes
// by waiting for memory, in two teams that share a deeper tile's K between them.
template <int BITS, int ROWS> struct Tile {
  static constexpr int TEAMS = ROWS > 32 ? 1 : 2;
  static constexpr int OUTS = WARPS / TEAMS * FRAG;
  static constexpr int DEPTH = ROWS > 32 ? 64 : 16384 / (BITS * ROWS);  // along K
  static constexpr int PITCH = DEPTH + 8;  // 16 bytes more: rows start in different banks
};

// 16 bytes as words; zeros where a tile reaches past the last row, the last output or K.
template <class T>
__device__ __forceinline__ Pack<unsigned> load_words(const T* from, bool inside) {
  if (inside) return load_pack(reinterpret_cast<const unsigned*>(from));
  return Pack<unsigned>{};
}

// out f32 [rows, n] with rows out_stride apart; x [rows, k]; codes [n, k*BITS/32]; scales, biases
// [n, k/group]. T is a 16-bit type, which weights are rounded to. A block takes OUTS outputs along
// grid x and ROWS rows along grid y. What the next tile needs is read while this one is multiplied.
template <class T, class S, int BITS, int ROWS>
__global__ void __launch_bounds__(THREADS, 3)
    affine_gemm(float* __restrict__ out, const T* __restrict__ x,
                const unsigned* __restrict__ codes, const S* __restrict__ scales,
                const S* __restrict__ biases, const i64* __restrict__ rows, int n, int k,
                int group, i64 x_stride, i64 out_stride) {
  using namespace nvcuda;
  using Size = Tile<BITS, ROWS>;
  constexpr int OUTS = Size::OUTS, TEAMS = Size::TEAMS, SIDE = WARPS / TEAMS;
  constexpr int DEPTH = Size::DEPTH, PITCH = Size::PITCH;
  constexpr int X_LINE = DEPTH / 8, W_LINE = DEPTH / CHUNK<BITS>;  // packs in a row of a tile
  constexpr int X_PACKS = ROWS * X_LINE / THREADS, W_PACKS = OUTS * W_LINE / THREADS;
  alignas(32) __shared__ T x_tile[ROWS * PITCH], w_tile[OUTS * PITCH];
  alignas(32) __shared__ float corner[TEAMS][FRAG * OUTS];

  const i64 first_row = i64(blockIdx.y) * ROWS, count = *rows - first_row;
  if (count <= 0) return;
  const int first = blockIdx.x * OUTS, thread = threadIdx.x, log_group = __ffs(group) - 1;
  const int warp = thread / WARP, team = warp / SIDE;

  Pack<unsigned> x_next[X_PACKS], w_next[W_PACKS];
  S scale[W_PACKS], bias[W_PACKS];  // converted when used: fetching waits for nothing
  auto fetch = [&](int start) {
#pragma unroll
    for (int i = 0; i < X_PACKS; i++) {
      const int p = i * THREADS + thread, row = p / X_LINE, at = start + p % X_LINE * 8;
      x_next[i] = load_words(x + (first_row + row) * x_stride + at, row < count && at < k);
    }
#pragma unroll
    for (int i = 0; i < W_PACKS; i++) {
      const int p = i * THREADS + thread, at = start + p % W_LINE * CHUNK<BITS>;
      const i64 output = first + p / W_LINE;
      const bool inside = output < n && at < k;
      const i64 g = output * (k >> log_group) + (at >> log_group);
      w_next[i] = load_words(codes + (output * k + at) / (32 / BITS), inside);
      scale[i] = inside ? scales[g] : from_float<S>(0);
      bias[i] = inside ? biases[g] : from_float<S>(0);
    }
  };

  wmma::fragment<wmma::accumulator, FRAG, FRAG, FRAG, float> sums[ROWS / FRAG];
#pragma unroll
  for (int r = 0; r < ROWS / FRAG; r++) wmma::fill_fragment(sums[r], 0.0f);
  fetch(0);
  for (int start = 0; start < k; start += DEPTH) {
    __syncthreads();  // before tiles that are still being read are overwritten
#pragma unroll
    for (int i = 0; i < X_PACKS; i++) {
      const int p = i * THREADS + thread;
      T* to = x_tile + p / X_LINE * PITCH + p % X_LINE * 8;
      store_pack(reinterpret_cast<unsigned*>(to), x_next[i]);
    }
#pragma unroll
    for (int i = 0; i < W_PACKS; i++) {
      const int p = i * THREADS + thread;
      T* to = w_tile + p / W_LINE * PITCH + p % W_LINE * CHUNK<BITS>;
      const float steps = to_float(scale[i]) * STEPS<BITS>;
      const float least = fmaf(-0.5f, steps, to_float(bias[i]));
#pragma unroll
      for (int part = 0; part < CHUNK<BITS>; part += 8) {
        float fraction[8];
        unpack<BITS>(w_next[i].at + part * BITS / 32, fraction);
        Pack<T> weights;
#pragma unroll
        for (int j = 0; j < 8; j++)
          weights.at[j] = from_float<T>(fmaf(steps, fraction[j], least));
        store_pack(to + part, weights);
      }
    }
    __syncthreads();
    if (start + DEPTH < k) fetch(start + DEPTH);
#pragma unroll 2
    for (int at = team * FRAG; at < DEPTH; at += TEAMS * FRAG) {
      wmma::fragment<wmma::matrix_b, FRAG, FRAG, FRAG, T, wmma::col_major> w;
      wmma::load_matrix_sync(w, w_tile + warp % SIDE * FRAG * PITCH + at, PITCH);
#pragma unroll
      for (int r = 0; r < ROWS / FRAG; r++) {
        wmma::fragment<wmma::matrix_a, FRAG, FRAG, FRAG, T, wmma::row_major> a;
        wmma::load_matrix_sync(a, x_tile + r * FRAG * PITCH + at, PITCH);
        wmma::mma_sync(sums[r], a, w, sums[r]);
      }
    }
  }

#pragma unroll
  for (int r = 0; r < ROWS / FRAG; r++) {
    float* to = corner[team] + warp % SIDE * FRAG;
    wmma::store_matrix_sync(to, sums[r], OUTS, wmma::mem_row_major);
    __syncthreads();
    for (int i = thread; i < FRAG * OUTS; i += THREADS) {
      const i64 row = r * FRAG + i / OUTS;
      const int output = first + i % OUTS;
      float sum = corner[0][i];
      if (TEAMS == 2) sum += corner[TEAMS - 1][i];
      if (row < count && output < n) out[(first_row + row) * out_stride + output] = sum;
    }
    __syncthreads();  // before `corner` is used again
  }
}
