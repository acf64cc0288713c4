// Which rows a product of few rows reads and writes, and how a block shares them out.
#pragma once
#include "common.cuh"

constexpr int WARPS = 4;  // in a block
constexpr int OUTS = 4;   // outputs of a warp: x is read and converted once for all of them

// Row i is read and row i is written.
struct InOrder {
  i64 count;
  __device__ __forceinline__ i64 in(i64 i) const { return i; }
  __device__ __forceinline__ i64 out(i64 i) const { return i; }
};

// Row list[i] is written, and `share` neighbours of those are made of one row.
struct Listed {
  i64 count;
  const int* list;
  int share;
  __device__ __forceinline__ i64 in(i64 i) const { return list[i] / share; }
  __device__ __forceinline__ i64 out(i64 i) const { return list[i]; }
};
