// nvcuda::wmma: matrices that a warp holds together, for f16 and bf16 with f32 sums.
//
// Which element lies in which lane is nobody's business, on a GPU as here; the order below is none
// that a kernel could have learned from one.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace nvcuda {
namespace wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K> struct Shape;
template <int M, int N, int K> struct Shape<matrix_a, M, N, K> {
  static constexpr int rows = M, columns = K;
};
template <int M, int N, int K> struct Shape<matrix_b, M, N, K> {
  static constexpr int rows = K, columns = N;
};
template <int M, int N, int K> struct Shape<accumulator, M, N, K> {
  static constexpr int rows = M, columns = N;
};

template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
  static_assert((M == 16 && N == 16 && K == 16) || (M == 32 && N == 8 && K == 16) ||
                (M == 8 && N == 32 && K == 16));
  using shape = Shape<Use, M, N, K>;
  static constexpr int num_elements = shape::rows * shape::columns / 32;
  T x[num_elements];
  static int row(int index) { return index % shape::rows; }
  static int column(int index) { return index / shape::rows; }
  static int index(int element, int lane) { return element * 32 + (lane * 5 + element) % 32; }
};

template <class F, class T> void fill_fragment(F& to, T value) {
  for (auto& x : to.x) x = std::decay_t<decltype(x)>(value);
}

template <class T> void check_address(const char* what, const T* at, unsigned stride) {
  if ((uintptr_t)at % 32) emulator::fail("%s: the address is not a multiple of 32 bytes", what);
  if (stride * sizeof(T) % 16) emulator::fail("%s: rows are not 16 bytes apart", what);
}

// The element of a fragment at `at`, whose rows (or columns) are `stride` apart.
template <class F, class T> T& element(T* at, unsigned stride, bool by_rows, int i) {
  int index = F::index(i, emulator::lane()), row = F::row(index), column = F::column(index);
  return by_rows ? at[(size_t)row * stride + column] : at[(size_t)column * stride + row];
}

template <class Use, int M, int N, int K, class T, class Layout>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& to, const T* at, unsigned stride) {
  using F = fragment<Use, M, N, K, T, Layout>;
  check_address("load_matrix_sync", at, stride);
  emulator::wait_for_warp("load_matrix_sync", ~0u, false);
  for (int i = 0; i < F::num_elements; i++)
    to.x[i] = element<F>(at, stride, std::is_same_v<Layout, row_major>, i);
}

template <int M, int N, int K, class T>
void load_matrix_sync(fragment<accumulator, M, N, K, T>& to, const T* at, unsigned stride,
                      layout_t layout) {
  using F = fragment<accumulator, M, N, K, T>;
  check_address("load_matrix_sync", at, stride);
  emulator::wait_for_warp("load_matrix_sync", ~0u, false);
  for (int i = 0; i < F::num_elements; i++)
    to.x[i] = element<F>(at, stride, layout == mem_row_major, i);
}

template <int M, int N, int K, class T>
void store_matrix_sync(T* at, const fragment<accumulator, M, N, K, T>& from, unsigned stride,
                       layout_t layout) {
  using F = fragment<accumulator, M, N, K, T>;
  check_address("store_matrix_sync", at, stride);
  emulator::wait_for_warp("store_matrix_sync", ~0u, false);
  for (int i = 0; i < F::num_elements; i++)
    element<F>(at, stride, layout == mem_row_major, i) = from.x[i];
}

// The whole matrix as floats, gathered from what the lanes have given.
template <class F, class T> UNSEEN void gather(float* to, unsigned offset) {
  for (unsigned lane = 0; lane < 32; lane++) {
    const T* given = (const T*)(emulator::warp().taken[lane] + offset);
    for (int i = 0; i < F::num_elements; i++) to[F::index(i, lane)] = (float)given[i];
  }
}

template <int M, int N, int K, class T, class LA, class LB>
UNSEEN void mma_sync(fragment<accumulator, M, N, K, float>& d,
                     const fragment<matrix_a, M, N, K, T, LA>& a,
                     const fragment<matrix_b, M, N, K, T, LB>& b,
                     const fragment<accumulator, M, N, K, float>& c) {
  using A = fragment<matrix_a, M, N, K, T, LA>;
  using B = fragment<matrix_b, M, N, K, T, LB>;
  using D = fragment<accumulator, M, N, K, float>;
  emulator::give(a.x);
  emulator::give(b.x, sizeof a.x);
  emulator::wait_for_warp("mma_sync", ~0u, false);
  // Element (r, c) at r + c * rows.
  emulator::Warp& warp = emulator::warp();
  float *left = warp.matrices[0], *right = warp.matrices[1];
  if (!warp.gathered) {
    gather<A, T>(left, 0);
    gather<B, T>(right, sizeof a.x);
    warp.gathered = true;
  }
  for (int i = 0; i < D::num_elements; i++) {
    int index = D::index(i, emulator::lane()), row = D::row(index), column = D::column(index);
    float sum = c.x[i];
    for (int k = 0; k < K; k++) sum += left[row + k * M] * right[k + column * K];
    d.x[i] = sum;
  }
}

}  // namespace wmma
}  // namespace nvcuda
