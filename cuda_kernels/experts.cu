// The contract is nanocupy/kernels/experts/cuda.py.
#include "affine_product.cuh"
#include "rows.cuh"

// A warp a row; `chosen` is at most a warp's lanes. Lane c finds the c-th largest.
__global__ void choose_experts(int* __restrict__ picks, float* __restrict__ weights,
                               const float* __restrict__ logits, const i64* __restrict__ rows,
                               int experts, int chosen, int normalised, i64 stride) {
  const i64 row = blockIdx.x;
  if (row >= *rows) return;
  const float* x = logits + row * stride;
  const int lane = threadIdx.x;
  const float infinity = __int_as_float(0x7f800000);
  float top = -infinity;
  for (int e = lane; e < experts; e += WARP) top = fmaxf(top, x[e]);
  top = warp_max(top);
  float total = 0;
  for (int e = lane; e < experts; e += WARP) total += expf(x[e] - top);
  total = warp_sum(total);
  const bool broken = total != total;

  int mine = lane, last = -1;  // of a row that is broken the first ones, whose weights are NaN
  float score = nanf(""), bound = infinity;
  for (int c = 0; c < chosen && !broken; c++) {
    float best = -infinity;
    int at = experts;
    for (int e = lane; e < experts; e += WARP) {
      const bool left = x[e] < bound || (x[e] == bound && e > last);
      if (left && (at == experts || x[e] > best)) best = x[e], at = e;
    }
#pragma unroll
    for (int step = WARP / 2; step; step /= 2) {
      const float theirs = __shfl_xor_sync(ALL_LANES, best, step);
      const int there = __shfl_xor_sync(ALL_LANES, at, step);
      if (there < experts && (at == experts || theirs > best || (theirs == best && there < at)))
        best = theirs, at = there;
    }
    if (lane == c) mine = at, score = best;
    bound = best;
    last = at;
  }

  float weight = lane < chosen ? expf(score - top) : 0;
  weight /= normalised ? warp_sum(weight) : total;
  int place = 0;  // in ascending order of experts
  for (int c = 0; c < chosen; c++) place += __shfl_sync(ALL_LANES, mine, c) < mine;
  if (lane < chosen) {
    picks[row * chosen + place] = mine;
    weights[row * chosen + place] = weight;
  }
}

// A block an expert: the places of `picks` that have it, ascending; rows of picks are `stride` apart.
// Block 0 counts all places, too.
template <int THREADS>
__global__ void list_pairs(int* __restrict__ lists, i64* __restrict__ counts,
                           const int* __restrict__ picks, const i64* __restrict__ rows, int chosen,
                           int capacity, i64 stride) {
  __shared__ int found[THREADS / WARP];
  const int expert = blockIdx.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int pairs = int(*rows) * chosen;
  int* list = lists + i64(expert) * capacity;
  int count = 0;
  for (int base = 0; base < pairs; base += THREADS) {
    const int pair = base + threadIdx.x;
    const bool wanted = pair < pairs && picks[pair / chosen * stride + pair % chosen] == expert;
    const unsigned votes = __ballot_sync(ALL_LANES, wanted);
    if (lane == 0) found[warp] = __popc(votes);
    __syncthreads();
    int place = count + __popc(votes & ((1u << lane) - 1));
    for (int w = 0; w < THREADS / WARP; w++) {
      if (w < warp) place += found[w];
      count += found[w];
    }
    if (wanted) list[place] = pair;
    __syncthreads();  // before `found` is used again
  }
  if (threadIdx.x == 0) counts[expert] = count;
  if (threadIdx.x == 0 && expert == 0) counts[gridDim.x] = pairs;
}

// Grid (outputs, lines of an expert, experts): see `affine_product`.
__device__ __forceinline__ Listed lines_of_expert(const int* lists, const i64* counts, int capacity,
                                                  int share) {
  return {counts[blockIdx.z], lists + i64(blockIdx.z) * capacity, share};
}

// Addresses of each expert's codes, then of all scales, then of all biases.
template <class T, class S, int BITS, int ROWS>
__global__ void expert_affine(float* __restrict__ out, const T* __restrict__ x,
                              const i64* __restrict__ addresses, const int* __restrict__ lists,
                              const i64* __restrict__ counts, int n, int k, int group, int capacity,
                              int share, i64 x_stride, i64 out_stride) {
  const i64* here = addresses + blockIdx.z;
  affine_product<T, S, BITS, ROWS>(out, x, reinterpret_cast<const unsigned*>(here[0]),
                                   reinterpret_cast<const S*>(here[gridDim.z]),
                                   reinterpret_cast<const S*>(here[2 * gridDim.z]),
                                   lines_of_expert(lists, counts, capacity, share), n, k, group,
                                   x_stride, out_stride);
}

// The same of floats, four neighbours a lane. The order of a row's sums depends on k alone.
template <class T, int ROWS>
__global__ void expert_linear(float* __restrict__ out, const T* __restrict__ x,
                              const i64* __restrict__ addresses, const int* __restrict__ lists,
                              const i64* __restrict__ counts, int n, int k, int capacity, int share,
                              i64 x_stride, i64 out_stride) {
  const Listed lines = lines_of_expert(lists, counts, capacity, share);
  const i64 first_row = i64(blockIdx.y) * ROWS, last_row = lines.count - 1;
  const int lane = threadIdx.x % WARP;
  const int first = (blockIdx.x * WARPS + threadIdx.x / WARP) * OUTS;
  if (first_row > last_row || first >= n) return;

  // Past the end, the last row or output is computed again and not written.
  const T* in[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++)
    in[r] = x + lines.in(first_row + r < last_row ? first_row + r : last_row) * x_stride;
  const T* weight = reinterpret_cast<const T*>(addresses[blockIdx.z]);
  const T* output[OUTS];
#pragma unroll
  for (int o = 0; o < OUTS; o++) output[o] = weight + i64(first + o < n ? first + o : n - 1) * k;

  float total[ROWS][OUTS] = {};
  for (int at = 4 * lane; at < k; at += 4 * WARP) {
    Four<float> w[OUTS];
#pragma unroll
    for (int o = 0; o < OUTS; o++) w[o] = load_four(output[o] + at, k - at);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const Four<float> four = load_four(in[r] + at, k - at);
#pragma unroll
      for (int o = 0; o < OUTS; o++)
#pragma unroll
        for (int i = 0; i < 4; i++) total[r][o] = fmaf(four.at[i], w[o].at[i], total[r][o]);
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

// out[row] = the sum of weight * y over the places of a row, in their order.
__global__ void sum_experts(float* __restrict__ out, const float* __restrict__ y,
                            const float* __restrict__ weights, const i64* __restrict__ rows,
                            int width, int chosen) {
  const Place here(rows, width);
  if (here.count <= 0) return;
  Four<float> sum = {};
  for (int c = 0; c < chosen; c++) {
    const i64 place = here.row * chosen + c;
    const Four<float> part = load_four(y + place * width + here.column, here.count);
#pragma unroll
    for (int i = 0; i < 4; i++) sum.at[i] = fmaf(part.at[i], weights[place], sum.at[i]);
  }
  store_four(out + here.row * width + here.column, sum, here.count);
}
