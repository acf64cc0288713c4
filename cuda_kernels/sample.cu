// The contract is nanocupy/kernels/sample/__init__.py. A block a row.
//
// Every filter keeps the probabilities at or above some value, so together they are one value,
// `least`. Floats that are not negative order like their bits, so values are compared as bits.
// Mass is counted in integers, which add to the same sum in any order.
#include "common.cuh"

constexpr float FINITE = 3.402823466e38f;  // the largest
constexpr float HOTTEST = 3.4e38f;         // temperature
constexpr float UNIT = 4398046511104.0f;   // 2^42: mass per 1.0 of probability
constexpr unsigned ONE = 0x3f800000;       // bits of the largest probability
constexpr int LIST = 4096;                 // values that `threshold` keeps in shared memory

struct Sum { template <class T> __device__ static T of(T a, T b) { return a + b; } };
struct Max { template <class T> __device__ static T of(T a, T b) { return a > b ? a : b; } };
struct Min { template <class T> __device__ static T of(T a, T b) { return a < b ? a : b; } };

template <class OP, class T> __device__ __forceinline__ T warp_reduce(T x) {
#pragma unroll
  for (int step = WARP / 2; step; step /= 2) x = OP::of(x, __shfl_xor_sync(ALL_LANES, x, step));
  return x;
}

// Every thread gets the result; the order is fixed.
template <class OP, int THREADS, class T> __device__ T block_reduce(T x) {
  __shared__ T part[THREADS / WARP];
  x = warp_reduce<OP>(x);
  if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = x;
  __syncthreads();
  x = part[0];
#pragma unroll
  for (int warp = 1; warp < THREADS / WARP; warp++) x = OP::of(x, part[warp]);
  __syncthreads();  // before `part` is used again
  return x;
}

__device__ __forceinline__ bool between(float p, unsigned low, unsigned high) {
  const unsigned bits = __float_as_uint(p);
  return bits >= low && bits < high;
}

__device__ __forceinline__ i64 mass_between(float p, unsigned low, unsigned high) {
  return between(p, low, high) ? static_cast<i64>(p * UNIT) : 0;
}

// log(sum(exp(x))), NaN if one is NaN or the largest is not finite. Copies the row.
template <int THREADS> __device__ float logsumexp(const float* x, float* copy, int count) {
  float best = -FINITE, sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += THREADS) best = fmaxf(best, x[i]);
  best = block_reduce<Max, THREADS>(best);
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += THREADS) {
    copy[i] = x[i];
    sum += expf(x[i] - best);
  }
  sum = block_reduce<Sum, THREADS>(sum);
  return sum >= 1 ? best + logf(sum) : nanf("");
}

// The edits of one row, whose ids are distinct: triples from `begin` to `end`.
template <int THREADS>
__device__ void edit(float* x, int count, const int* edits, int begin, int end) {
  for (int i = begin + threadIdx.x; i < end; i += THREADS) {
    const int id = edits[3 * i];
    const float mul = __int_as_float(edits[3 * i + 1]), add = __int_as_float(edits[3 * i + 2]);
    if (id >= 0 && id < count) x[id] = __fadd_rn(x[id] > 0 ? x[id] / mul : x[id] * mul, add);
  }
  __syncthreads();
}

struct Best {
  float value;
  int index;
};

// The largest, which is infinite if one is NaN, and where it is first.
template <int THREADS> __device__ Best largest(const float* x, int count) {
  const float infinity = __int_as_float(0x7f800000);
  Best own = {-infinity, count};
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += THREADS) {
    const float value = x[i] <= FINITE ? x[i] : infinity;
    if (value > own.value) own = {value, i};
  }
  const float value = block_reduce<Max, THREADS>(own.value);
  return {value, block_reduce<Min, THREADS>(own.value == value ? own.index : count)};
}

struct Tally {
  i64 number, mass;
};

// How many probabilities are in [low, high), and their mass.
template <int THREADS>
__device__ Tally tally(const float* p, int count, unsigned low, unsigned high) {
  Tally sum = {0, 0};
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += THREADS) {
    sum.number += between(p[i], low, high);
    sum.mass += mass_between(p[i], low, high);
  }
  return {block_reduce<Sum, THREADS>(sum.number), block_reduce<Sum, THREADS>(sum.mass)};
}

// The k-th largest probability; if top_k is 0, the largest that with all above it has top_p of the
// mass. Those below `least` do not count; the result is `least` if there is no such probability.
//
// The interval [low, high), which holds it, is halved until it is alone. Once few enough are
// inside, they move to shared memory.
template <int THREADS>
__device__ unsigned threshold(const float* p, int count, unsigned least, int top_k, float top_p) {
  __shared__ float list[LIST];
  __shared__ int listed;
  unsigned low = least, high = ONE + 1;
  const Tally all = tally<THREADS>(p, count, low, high);
  const i64 share = static_cast<i64>(double(top_p) * double(all.mass));
  const i64 wanted = top_k ? top_k : max(share, i64(1));
  if (top_k > all.number) return least;
  i64 inside = all.number, above = 0;  // how many are in the interval; what is above it
  while (high - low > 1) {
    if (count > LIST && inside <= LIST) {
      if (threadIdx.x == 0) listed = 0;
      __syncthreads();
      for (int i = threadIdx.x; i < count; i += THREADS)
        if (between(p[i], low, high)) list[atomicAdd(&listed, 1)] = p[i];
      __syncthreads();
      p = list, count = inside;
    }
    const unsigned middle = low + (high - low) / 2;
    const Tally upper = tally<THREADS>(p, count, middle, high);
    const i64 weight = top_k ? upper.number : upper.mass;
    if (above + weight >= wanted) {
      low = middle, inside = upper.number;
    } else {
      high = middle, inside -= upper.number, above += weight;
    }
  }
  return low;
}

// The first index whose mass, with all before it, exceeds uniform * mass. Each warp weighs a
// section of the row; the section in which the sum passes the goal is cut into sections again.
template <int THREADS>
__device__ int draw(const float* p, int count, unsigned least, float uniform) {
  constexpr int WARPS = THREADS / WARP;
  static_assert(WARPS > 1, "a section must be smaller than what it is cut from");
  __shared__ i64 mass[WARPS];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  int begin = 0, end = count;
  i64 goal = -1;
  do {
    const int span = ceil_div(ceil_div(end - begin, WARPS), WARP) * WARP;
    const int stop = min(begin + (warp + 1) * span, end);
    i64 sum = 0;
#pragma unroll 4
    for (int i = begin + warp * span + lane; i < stop; i += WARP)
      sum += mass_between(p[i], least, ONE + 1);
    sum = warp_reduce<Sum>(sum);
    if (lane == 0) mass[warp] = sum;
    __syncthreads();
    if (goal < 0) {
      i64 all = 0;
      for (int i = 0; i < WARPS; i++) all += mass[i];
      goal = min(static_cast<i64>(double(uniform) * double(all)), all - 1);
    }
    int section = 0;
    while (goal >= mass[section]) goal -= mass[section++];
    begin += section * span;
    end = min(begin + span, end);
    __syncthreads();  // before `mass` is used again
  } while (end - begin > WARP);
  while (begin < end - 1 && (goal -= mass_between(p[begin], least, ONE + 1)) >= 0) begin++;
  return begin;
}

// A token from the edited logits at x, in whose place their probabilities come.
template <int THREADS>
__device__ int chosen(float* x, int count, const float* settings, int top_k) {
  const float temperature = fminf(settings[0], HOTTEST), top_p = settings[1], min_p = settings[2];
  const Best best = largest<THREADS>(x, count);
  if (!(fabsf(best.value) <= FINITE)) return -1;
  if (temperature <= 0) return best.index;
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += THREADS) {
    const float exponent = (x[i] - best.value) / temperature;
    x[i] = exponent < -87 ? 0 : fminf(expf(exponent), 1);
  }
  __syncthreads();
  unsigned least = 1;  // zeros are out
  if (top_k > 0 && top_k < count) least = threshold<THREADS>(x, count, least, top_k, 0);
  if (top_p < 1) least = threshold<THREADS>(x, count, least, 0, top_p);
  if (min_p > 0) least = max(least, __float_as_uint(fminf(min_p, 1)));
  return draw<THREADS>(x, count, least, settings[3]);
}

template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1)
    sample(int* __restrict__ tokens, float* __restrict__ lse, const float* __restrict__ logits,
           const i64* __restrict__ rows, const float* __restrict__ settings,
           const int* __restrict__ top_k, const int* __restrict__ target,
           const int* __restrict__ edit_start, const int* __restrict__ edits,
           float* __restrict__ scratch, int vocabulary) {
  const i64 row = blockIdx.x;
  if (row >= *rows) return;
  float* x = scratch + row * vocabulary;
  const float sum = logsumexp<THREADS>(logits + row * vocabulary, x, vocabulary);
  int token = target[row];
  if (sum != sum || token >= vocabulary) {
    token = -1;
  } else if (token < 0) {
    edit<THREADS>(x, vocabulary, edits, edit_start[row], edit_start[row + 1]);
    token = chosen<THREADS>(x, vocabulary, settings + 4 * row, top_k[row]);
  }
  if (threadIdx.x == 0) tokens[row] = token, lse[row] = sum;
}
