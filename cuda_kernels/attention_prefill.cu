// Attention of neighbours in a sequence: see nanocupy/kernels/attention/cuda.py.
//
// A block takes a tile of up to TILE rows for one query head, a warp 16 of them. K and V come in
// tiles of KEYS tokens: while tensor cores work on one, the next is on its way into registers.
// How a fragment's elements are spread over lanes is not known, so scores go through shared memory,
// where lanes i and i + 16 own row i of their warp, and the factors that rescale the sums come back
// as a fragment of the same kind.
#include <mma.h>

#include "attention.cuh"

namespace wmma = nvcuda::wmma;

constexpr int WARPS = 4, THREADS = WARPS * WARP;
constexpr int SIDE = 16;            // of a tensor core's matrices
constexpr int TILE = WARPS * SIDE;  // rows of a tile; the same in Python
constexpr int PAD = 8;              // elements after a row in shared memory: rows change banks

// Sixteen bytes of C become as many elements of T, written at once.
template <class T, class C> struct Put {
  __device__ __forceinline__ static void at(T* to, const uint4& bits) {
    const Pack<C> from = as_pack<C>(bits);
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < Pack<C>::size; i++) pack.at[i] = from_float<T>(to_float(from.at[i]));
    if (Pack<C>::size == Pack<T>::size)
      store_pack(to, pack);
    else
      *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(&pack);
  }
};
template <class T> struct Put<T, T> {
  __device__ __forceinline__ static void at(T* to, const uint4& bits) {
    *reinterpret_cast<uint4*>(to) = bits;
  }
};

// KEYS tokens of K or V on their way from the cache to shared memory, in registers.
template <class C, int D, int KEYS> struct Staged {
  static constexpr int SIZE = Pack<C>::size, PACKS = SIDE * D / SIZE;  // of SIDE tokens
  static constexpr int TURNS = ceil_div(PACKS, THREADS);
  uint4 held[KEYS / SIDE][TURNS];

  // From the token `first` on, a multiple of 16, so that the 16 tokens of a part are neighbours in
  // the cache. What is not among oldest .. end is not read: the cache may hold anything there.
  __device__ __forceinline__ void fetch(const C* cache, const Pages& pages, int first, int oldest,
                                        int end, unsigned unknown) {
#pragma unroll
    for (int part = 0; part < KEYS / SIDE; part++) {
      const int token = first + part * SIDE;
      const i64 row = token < end ? pages.row(token) : -1;
      const int start = oldest - token, stop = row < 0 ? 0 : end - token;
#pragma unroll
      for (int turn = 0; turn < TURNS; turn++) {
        const int pack = turn * THREADS + threadIdx.x, at = pack * SIZE / D;
        const bool wanted = pack < PACKS && at >= start && at < stop;
        held[part][turn] = load_bits(wanted, cache + row * D + pack * SIZE, row < 0 ? unknown : 0);
      }
    }
  }

  template <class T> __device__ __forceinline__ void put(T* to) const {
#pragma unroll
    for (int part = 0; part < KEYS / SIDE; part++)
#pragma unroll
      for (int turn = 0; turn < TURNS; turn++) {
        const int pack = turn * THREADS + threadIdx.x, row = part * SIDE + pack * SIZE / D;
        if (pack < PACKS)
          Put<T, C>::at(to + row * (D + PAD) + pack * SIZE % D, held[part][turn]);
      }
  }
};

// Grid (tiles, heads). Dynamic shared memory: see `prefill_shared` in Python.
template <class T, class C, int D, int KEYS>
__global__ void __launch_bounds__(THREADS, 2)
    attend_prefill(T* __restrict__ out, const T* __restrict__ q, const C* __restrict__ k_cache,
                   const C* __restrict__ v_cache, const int* __restrict__ block_tables,
                   const int* __restrict__ positions, const int* __restrict__ tiles,
                   const i64* __restrict__ rows, int heads, int kv_heads, int block_size,
                   int blocks, int table_rows, int table_width, int row_limit, int window,
                   float scale, float softcap) {
  constexpr int WIDE = D + PAD, LINE = KEYS + PAD / 2;  // elements from row to row: of T, of float
  constexpr int OWN = KEYS / 2;                         // scores of a lane
  DYNAMIC_SHARED(shared);
  T* const q_tile = reinterpret_cast<T*>(shared);
  T* const k_tile = q_tile + TILE * WIDE;
  T* const v_tile = k_tile + KEYS * WIDE;
  const int warp = threadIdx.x / WARP, row = threadIdx.x % SIDE, half = threadIdx.x % WARP / SIDE;
  float* const scores = reinterpret_cast<float*>(v_tile + KEYS * WIDE) + warp * SIDE * LINE;
  T* const weights = reinterpret_cast<T*>(scores);  // take the place of scores, row for row

  if (blockIdx.x >= *rows) return;
  const int first_row = tiles[4 * blockIdx.x], count = tiles[4 * blockIdx.x + 1];
  const int sequence = tiles[4 * blockIdx.x + 2], head = blockIdx.y;
  if (first_row < 0 || count < 1 || count > TILE || first_row > row_limit - count) return;
  const i64 place = (i64(first_row) * heads + head) * D, stride = i64(heads) * D;

  const int position = positions[first_row];
  if (position < 0 || position / block_size >= table_width || sequence < 0 ||
      sequence >= table_rows) {
    for (int i = threadIdx.x; i < count * D; i += THREADS)
      out[place + i / D * stride + i % D] = from_float<T>(not_a_number());
    return;
  }
  const int limit = min(table_width * block_size, position + count);  // tokens there can be
  const int oldest = window > 0 ? max(position + 1 - window, 0) : 0;
  const int kv_head = head / (heads / kv_heads);
  const Pages pages = {block_tables + i64(sequence) * table_width, blocks, block_size, kv_heads,
                       kv_head};

  for (int i = threadIdx.x; i < TILE * D / Pack<T>::size; i += THREADS) {
    const int r = i * Pack<T>::size / D, d = i * Pack<T>::size % D;
    Put<T, T>::at(q_tile + r * WIDE + d, load_bits(r < count, q + place + r * stride + d, 0));
  }

  // This lane's row, and the rows of its warp.
  const int own = warp * SIDE + row, newest = position + own;
  const int own_oldest = window > 0 ? max(newest + 1 - window, 0) : 0;
  const int warp_newest = min(position + warp * SIDE + SIDE, limit) - 1;
  const int warp_oldest = window > 0 ? position + warp * SIDE + 1 - window : 0;
  const float fold = softcap > 0 ? scale / softcap : scale * LOG2E;
  float top = minus_infinity(), total = 0;

  wmma::fragment<wmma::accumulator, SIDE, SIDE, SIDE, float> sums[D / SIDE];
#pragma unroll
  for (int n = 0; n < D / SIDE; n++) wmma::fill_fragment(sums[n], 0.0f);

  Staged<C, D, KEYS> staged;
  const int begin = oldest / SIDE * SIDE;
  staged.fetch(k_cache, pages, begin, oldest, limit, ALL_ONES);
  for (int base = begin; base < limit; base += KEYS) {
    const bool busy = warp * SIDE < count && base <= warp_newest && base + KEYS > warp_oldest;
    staged.put(k_tile);
    __syncthreads();  // K is there; V of the tile before is done with
    staged.fetch(v_cache, pages, base, oldest, limit, 0);

    if (busy) {
      wmma::fragment<wmma::accumulator, SIDE, SIDE, SIDE, float> products[KEYS / SIDE];
#pragma unroll
      for (int n = 0; n < KEYS / SIDE; n++) wmma::fill_fragment(products[n], 0.0f);
#pragma unroll 2
      for (int d = 0; d < D; d += SIDE) {
        wmma::fragment<wmma::matrix_a, SIDE, SIDE, SIDE, T, wmma::row_major> a;
        wmma::load_matrix_sync(a, q_tile + warp * SIDE * WIDE + d, WIDE);
#pragma unroll
        for (int n = 0; n < KEYS / SIDE; n++) {
          wmma::fragment<wmma::matrix_b, SIDE, SIDE, SIDE, T, wmma::col_major> b;
          wmma::load_matrix_sync(b, k_tile + n * SIDE * WIDE + d, WIDE);
          wmma::mma_sync(products[n], a, b, products[n]);
        }
      }
#pragma unroll
      for (int n = 0; n < KEYS / SIDE; n++)
        wmma::store_matrix_sync(scores + n * SIDE, products[n], LINE, wmma::mem_row_major);
      __syncwarp();

      float x[OWN], highest = top;
#pragma unroll
      for (int i = 0; i < OWN; i += 4) {
        const Pack<float> four = load_pack(scores + row * LINE + half * OWN + i);
#pragma unroll
        for (int e = 0; e < 4; e++) x[i + e] = four.at[e] * fold;
      }
      if (softcap > 0)
#pragma unroll
        for (int i = 0; i < OWN; i++) x[i] = softcap * LOG2E * tanhf(x[i]);
      const int from = own_oldest - base - half * OWN, to = newest - base - half * OWN;
#pragma unroll
      for (int i = 0; i < OWN; i++) {
        if (i < from || i > to) x[i] = minus_infinity();
        highest = fmaxf(highest, x[i]);
      }
      highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, SIDE));
      const float origin = highest == minus_infinity() ? 0 : highest;  // nothing to attend to yet
      const float keep = exp2f(top - origin);
      top = highest;
      total *= keep;
      __syncwarp();  // scores are read

      if (__any_sync(ALL_LANES, keep != 1)) {
        Pack<float> four;
#pragma unroll
        for (int e = 0; e < 4; e++) four.at[e] = keep;
        store_pack(scores + row * LINE + half * 8, four);
        store_pack(scores + row * LINE + half * 8 + 4, four);
        __syncwarp();
        wmma::fragment<wmma::accumulator, SIDE, SIDE, SIDE, float> factors;
        wmma::load_matrix_sync(factors, scores, LINE, wmma::mem_row_major);
        __syncwarp();
#pragma unroll
        for (int n = 0; n < D / SIDE; n++)
#pragma unroll
          for (int i = 0; i < factors.num_elements; i++) sums[n].x[i] *= factors.x[i];
      }

#pragma unroll
      for (int i = 0; i < OWN; i += Pack<T>::size) {
        Pack<T> pack;
#pragma unroll
        for (int e = 0; e < Pack<T>::size; e++) {
          pack.at[e] = from_float<T>(exp2f(x[i + e] - origin));
          total += to_float(pack.at[e]);  // what V is multiplied by, so that weights add up to 1
        }
        store_pack(weights + row * 2 * LINE + half * OWN + i, pack);
      }
    }

    staged.put(v_tile);
    __syncthreads();  // V is there; K is done with
    if (base + KEYS < limit) staged.fetch(k_cache, pages, base + KEYS, oldest, limit, ALL_ONES);
    if (busy) {
#pragma unroll 1
      for (int k = 0; k < KEYS; k += SIDE) {
        wmma::fragment<wmma::matrix_a, SIDE, SIDE, SIDE, T, wmma::row_major> a;
        wmma::load_matrix_sync(a, weights + k, 2 * LINE);
#pragma unroll
        for (int n = 0; n < D / SIDE; n++) {
          wmma::fragment<wmma::matrix_b, SIDE, SIDE, SIDE, T, wmma::row_major> b;
          wmma::load_matrix_sync(b, v_tile + k * WIDE + n * SIDE, WIDE);
          wmma::mma_sync(sums[n], a, b, sums[n]);
        }
      }
    }
  }

  total += __shfl_xor_sync(ALL_LANES, total, SIDE);
  const float inverse = newest < limit ? 1 / total : not_a_number();
#pragma unroll
  for (int n = 0; n < D / SIDE; n++) {
    __syncwarp();
    wmma::store_matrix_sync(scores, sums[n], LINE, wmma::mem_row_major);
    __syncwarp();
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      const Pack<float> four = load_pack(scores + row * LINE + half * 8 + i);
#pragma unroll
      for (int e = 0; e < 4; e++) pack.at[i + e] = from_float<T>(four.at[e] * inverse);
    }
    if (own < count) store_pack(out + place + own * stride + n * SIDE + half * 8, pack);
  }
}
