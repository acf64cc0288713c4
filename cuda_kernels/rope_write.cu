// The contracts are nanocupy/kernels/{rope,rope_write}.py. A warp a head; rows along grid x.
#include "common.cuh"

// One head, turned and rounded. `angles`: dims / 2 cosines, then as many sines; dims 0: as it is.
template <class T>
__device__ __forceinline__ void turn(T* out, const float* x, const float* angles, int size,
                                     int dims, bool traditional) {
  const int lane = threadIdx.x % WARP, half = dims / 2;
  for (int j = lane; j < half; j += WARP) {
    const int first = traditional ? 2 * j : j, second = traditional ? 2 * j + 1 : half + j;
    const float u = x[first], v = x[second], cosine = angles[j], sine = angles[half + j];
    out[first] = from_float<T>(__fsub_rn(u * cosine, v * sine));  // products rounded: no fma
    out[second] = from_float<T>(__fadd_rn(v * cosine, u * sine));
  }
  for (int j = dims + lane; j < size; j += WARP) out[j] = from_float<T>(x[j]);
}

template <class T> __device__ __forceinline__ void poison(T* out, int size) {
  for (int j = threadIdx.x % WARP; j < size; j += WARP) out[j] = from_float<T>(nanf(""));
}

__device__ __forceinline__ int head_of_warp() {
  return blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP;
}

// No __restrict__: out may be x.
__global__ void rope(float* out, const float* x, const int* positions, const float* table,
                     const i64* rows, int heads, int head_dim, int dims, int limit, int traditional,
                     i64 x_stride, i64 out_stride) {
  const i64 row = blockIdx.x;
  const int head = head_of_warp();
  if (row >= *rows || head >= heads) return;
  const i64 position = positions[row];
  out += row * out_stride + head * head_dim;
  x += row * x_stride + head * head_dim;
  if (position >= 0 && position < limit)
    turn(out, x, table + position * dims, head_dim, dims, traditional);
  else
    poison(out, head_dim);
}

// Warps take the heads of q, then those of k, then those of v.
template <class T, class C>
__global__ void rope_write(T* __restrict__ q_out, C* __restrict__ k_cache, C* __restrict__ v_cache,
                           const float* __restrict__ q, const float* __restrict__ k,
                           const float* __restrict__ v, const int* __restrict__ positions,
                           const int* __restrict__ slots, const float* __restrict__ table,
                           const i64* __restrict__ rows, int heads, int kv_heads, int size,
                           int dims, int limit, int traditional, i64 q_stride, i64 k_stride,
                           i64 v_stride, int block_size, int blocks) {
  const i64 row = blockIdx.x;
  const int head = head_of_warp();
  if (row >= *rows || head >= heads + 2 * kv_heads) return;
  const i64 slot = slots[row], position = dims ? positions[row] : 0;
  const bool good = slot >= -1 && slot < i64(blocks) * block_size &&
                    (!dims || (position >= 0 && position < limit));
  const float* angles = table + (good ? position * dims : 0);
  if (head < heads) {
    T* to = q_out + (row * heads + head) * size;
    if (good)
      turn(to, q + row * q_stride + head * size, angles, size, dims, traditional);
    else
      poison(to, size);
  } else if (good && slot >= 0) {
    const int kv_head = (head - heads) % kv_heads;
    const i64 line = (slot / block_size * kv_heads + kv_head) * block_size + slot % block_size;
    if (head < heads + kv_heads)
      turn(k_cache + line * size, k + row * k_stride + kv_head * size, angles, size, dims,
           traditional);
    else
      turn(v_cache + line * size, v + row * v_stride + kv_head * size, angles, size, 0, false);
  }
}
