// What both attention kernels use: where the tokens of a sequence lie in the pages.
#pragma once
#include "common.cuh"

constexpr float LOG2E = 1.4426950408889634f;  // exp(x) = exp2(x * LOG2E); exp2 is one instruction

__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fffffff); }
__device__ __forceinline__ float minus_infinity() { return -__int_as_float(0x7f800000); }

// One KV head of a sequence, in a cache [blocks][kv_heads][block_size][head_dim].
struct Pages {
  const int* table;  // the sequence's blocks
  int blocks, block_size, kv_heads, kv_head;

  // Which row of head_dim elements holds a token; -1 if its block is outside the cache.
  __device__ __forceinline__ i64 row(int token) const {
    const int block = table[token / block_size];
    if (block < 0 || block >= blocks) return -1;
    return (i64(block) * kv_heads + kv_head) * block_size + token % block_size;
  }
};

// Sixteen bytes as they are, where `wanted`; else the word `otherwise` four times. ALL_ONES is NaN
// as float, f16 and bf16: as K it makes scores NaN, and with them whatever attends there.
constexpr unsigned ALL_ONES = 0xffffffffu;

template <class T>
__device__ __forceinline__ uint4 load_bits(bool wanted, const T* from, unsigned otherwise) {
  if (wanted) return *reinterpret_cast<const uint4*>(from);
  return make_uint4(otherwise, otherwise, otherwise, otherwise);
}

template <class T> __device__ __forceinline__ Pack<T> as_pack(const uint4& bits) {
  Pack<T> pack;
  *reinterpret_cast<uint4*>(&pack) = bits;
  return pack;
}
