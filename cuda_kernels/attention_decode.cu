// Attention of rows by themselves: see nanocupy/kernels/attention/cuda.py.
//
// A block takes one part of a row's tokens for HEADS query heads of one KV head. Its warps take
// STEP tokens in turn, each with a running softmax of its own, and never wait for one another.
// Within a warp a group of LANES lanes reads KEYS tokens, a lane 16 bytes (or twice that) of each.
#include "attention.cuh"

constexpr int WARPS = 4, THREADS = WARPS * WARP;
constexpr int KEYS = 4;  // neighbours: in one block of the cache, and enough loads in flight

// A power of two, so that shuffles stay inside a group; lanes past the last pack idle.
__host__ __device__ constexpr int lanes_for(int packs) {
  int lanes = KEYS;
  while (lanes < packs && lanes < WARP) lanes *= 2;
  return lanes;
}

// Sums of x[key] over the lanes of a group. Lane i gets that of key i / (LANES / KEYS) only: lanes
// give away what they do not keep, so that four sums over 16 lanes take 5 shuffles, not 16.
template <int LANES> __device__ __forceinline__ float sum_by_key(const float (&x)[KEYS], int lane) {
  bool upper = lane & LANES / 2;
  const float even = (upper ? x[2] : x[0]) +
                     __shfl_xor_sync(ALL_LANES, upper ? x[0] : x[2], LANES / 2);
  const float odd = (upper ? x[3] : x[1]) +
                    __shfl_xor_sync(ALL_LANES, upper ? x[1] : x[3], LANES / 2);
  upper = lane & LANES / 4;
  float sum = (upper ? odd : even) +
              __shfl_xor_sync(ALL_LANES, upper ? even : odd, LANES / 4);
#pragma unroll
  for (int step = LANES / 8; step; step /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
  return sum;
}

// Which element of a head is the e-th of a lane's: packs go round the lanes of a group.
template <int SIZE, int LANES> __device__ __forceinline__ int element(int e, int lane) {
  return (e / SIZE * LANES + lane) * SIZE + e % SIZE;
}

// A partial result of one head: D weighted sums of V, the largest score, the sum of weights.
// Joins element d of `count` of them, `stride` floats apart, in order.
template <int D>
__device__ __forceinline__ float join(const float* parts, int count, int stride, int d, float& top,
                                      float& total) {
  top = minus_infinity();
  for (int i = 0; i < count; i++) top = fmaxf(top, parts[i64(i) * stride + D]);
  float sum = 0;
  total = 0;
  for (int i = 0; i < count; i++) {
    const float* part = parts + i64(i) * stride;
    const float weight = exp2f(part[D] - top);
    total += weight * part[D + 1];
    sum += weight * part[d];
  }
  return sum;
}

// Grid (parts, kv_heads * slices of a group's heads, capacity).
template <class T, class C, int D, int HEADS>
__global__ void __launch_bounds__(THREADS, 2)
    attend_decode(T* __restrict__ out, const T* __restrict__ q, const C* __restrict__ k_cache,
                  const C* __restrict__ v_cache, const int* __restrict__ block_tables,
                  const int* __restrict__ positions, const int* __restrict__ sequences,
                  const int* __restrict__ lone, const i64* __restrict__ rows, float* parts,
                  int* arrived, int heads, int kv_heads, int block_size, int blocks,
                  int table_rows, int table_width, int row_limit, int window, float scale,
                  float softcap) {
  constexpr int SIZE = Pack<C>::size, PACKS = D / SIZE;
  constexpr int LANES = lanes_for(PACKS), GROUPS = WARP / LANES, STEP = GROUPS * KEYS;
  constexpr int TURNS = ceil_div(PACKS, LANES), WIDTH = TURNS * SIZE;  // packs and elements a lane
  constexpr int PART = HEADS * (D + 2);
  __shared__ Pack<float> queries[HEADS][WIDTH / 4][LANES];
  __shared__ float found[WARPS][HEADS][D + 2];
  __shared__ bool last;

  if (blockIdx.z >= *rows) return;
  const int row = lone[blockIdx.z];
  if (row < 0 || row >= row_limit) return;
  const int slices = gridDim.y / kv_heads, group = heads / kv_heads;
  const int kv_head = blockIdx.y / slices, head = blockIdx.y % slices * HEADS;
  const int count = min(HEADS, group - head);
  const i64 place = (i64(row) * heads + kv_head * group + head) * D;

  const int position = positions[row], sequence = sequences[row];
  if (position < 0 || position / block_size >= table_width || sequence < 0 ||
      sequence >= table_rows) {
    if (blockIdx.x == 0)
      for (int i = threadIdx.x; i < count * D; i += THREADS)
        out[place + i] = from_float<T>(not_a_number());
    return;
  }

  // Tokens oldest .. position in parts of equal length; those of a short row are fewer.
  const int oldest = window > 0 ? max(position + 1 - window, 0) : 0;
  const int begin = oldest / KEYS * KEYS, tokens = position + 1 - begin;
  const int length = ceil_div(tokens, gridDim.x * WARPS * STEP) * WARPS * STEP;
  const int used = ceil_div(tokens, length);
  if (blockIdx.x >= used) return;
  const int first = begin + blockIdx.x * length, end = min(first + length, position + 1);

  // Four elements of each lane of a group, then the next four: the order that lanes read them in.
  const float fold = softcap > 0 ? scale / softcap : scale * LOG2E;
  for (int i = threadIdx.x; i < HEADS * WIDTH * LANES; i += THREADS) {
    const int h = i / (WIDTH * LANES), e = i / LANES % WIDTH, owner = i % LANES;
    const int d = element<SIZE, LANES>(e, owner);
    queries[h][e / 4][owner].at[e % 4] =
        h < count && d < D ? to_float(q[place + h * D + d]) * fold : 0;
  }
  __syncthreads();

  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP % LANES;
  const int team = threadIdx.x % WARP / LANES;
  const Pages pages = {block_tables + i64(sequence) * table_width, blocks, block_size, kv_heads,
                       kv_head};
  float top[HEADS], total[HEADS], sums[HEADS][WIDTH];
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    top[h] = minus_infinity();
    total[h] = 0;
#pragma unroll
    for (int e = 0; e < WIDTH; e++) sums[h][e] = 0;
  }

  for (int base = first + warp * STEP; base < end; base += WARPS * STEP) {
    const int token = base + team * KEYS;
    const i64 from = token < end ? pages.row(token) : 0;
    uint4 k[KEYS][TURNS], v[KEYS][TURNS];
#pragma unroll
    for (int key = 0; key < KEYS; key++) {
      const bool seen = token + key >= oldest && token + key < end;
#pragma unroll
      for (int turn = 0; turn < TURNS; turn++) {
        const int pack = turn * LANES + lane;
        const i64 at = (from + key) * D + pack * SIZE;
        const bool wanted = seen && from >= 0 && pack < PACKS;
        k[key][turn] = load_bits(wanted, k_cache + at, from < 0 ? ALL_ONES : 0);
        v[key][turn] = load_bits(wanted, v_cache + at, 0);
      }
    }

    const int mine = token + lane / (LANES / KEYS);  // the token whose weights this lane has
    float weight[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float x[KEYS] = {};
#pragma unroll
      for (int e = 0; e < WIDTH; e += 4) {
        const Pack<float> four = queries[h][e / 4][lane];
#pragma unroll
        for (int key = 0; key < KEYS; key++) {
          const Pack<C> pack = as_pack<C>(k[key][e / SIZE]);
#pragma unroll
          for (int i = 0; i < 4; i++) x[key] += four.at[i] * to_float(pack.at[e % SIZE + i]);
        }
      }
      float score = sum_by_key<LANES>(x, lane);
      if (softcap > 0) score = softcap * LOG2E * tanhf(score);
      if (mine < oldest || mine >= end) score = minus_infinity();
      float highest = fmaxf(top[h], score);
#pragma unroll
      for (int step = WARP / 2; step >= LANES / KEYS; step /= 2)
        highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, step));
      const float keep = exp2f(top[h] - highest);
      weight[h] = exp2f(score - highest);
      top[h] = highest;
      total[h] = total[h] * keep + weight[h];
#pragma unroll
      for (int e = 0; e < WIDTH; e++) sums[h][e] *= keep;
    }
#pragma unroll
    for (int key = 0; key < KEYS; key++)
#pragma unroll
      for (int h = 0; h < HEADS; h++) {
        const float w = __shfl_sync(ALL_LANES, weight[h], key * (LANES / KEYS), LANES);
#pragma unroll
        for (int e = 0; e < WIDTH; e++)
          sums[h][e] += w * to_float(as_pack<C>(v[key][e / SIZE]).at[e % SIZE]);
      }
  }

  // Groups of a warp, then the warps of the block.
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
#pragma unroll
    for (int step = LANES / KEYS; step < WARP; step *= 2)
      total[h] += __shfl_xor_sync(ALL_LANES, total[h], step);
#pragma unroll
    for (int e = 0; e < WIDTH; e++) {
#pragma unroll
      for (int step = LANES; step < WARP; step *= 2)
        sums[h][e] += __shfl_xor_sync(ALL_LANES, sums[h][e], step);
      const int d = element<SIZE, LANES>(e, lane);
      if (team == 0 && d < D) found[warp][h][d] = sums[h][e];
    }
    if (threadIdx.x % WARP == 0) {
      found[warp][h][D] = top[h];
      found[warp][h][D + 1] = total[h];
    }
  }
  __syncthreads();
  const i64 unit = i64(blockIdx.z) * gridDim.y + blockIdx.y;
  float* mine = parts + unit * gridDim.x * PART;
  for (int i = threadIdx.x; i < count * D; i += THREADS) {
    const int h = i / D, d = i % D;
    float highest, weights;
    const float sum = join<D>(found[0][h], WARPS, PART, d, highest, weights);
    if (used == 1) {
      out[place + i] = from_float<T>(sum / weights);
      continue;
    }
    float* part = mine + blockIdx.x * PART + h * (D + 2);
    part[d] = sum;
    if (d == 0) {
      part[D] = highest;
      part[D + 1] = weights;
    }
  }
  if (used == 1) return;

  // The block that comes last joins the parts. The counter is left at zero for the next launch.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(arrived + unit, 1) == used - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) arrived[unit] = 0;
  for (int i = threadIdx.x; i < count * D; i += THREADS) {
    float highest, weights;
    const float sum = join<D>(mine + i / D * (D + 2), used, PART, i % D, highest, weights);
    out[place + i] = from_float<T>(sum / weights);
  }
}
