// Rows of any width, four neighbours a thread: read or written at once where the address allows it.
#pragma once
#include "common.cuh"

template <class T> struct alignas(4 * sizeof(T)) Four { T at[4]; };

template <class T> __device__ __forceinline__ bool aligned(const T* at) {
  return reinterpret_cast<size_t>(at) % sizeof(Four<T>) == 0;
}

// The first `count` of four; at most four.
template <class T> __device__ __forceinline__ Four<float> load_four(const T* from, int count) {
  Four<float> values = {};
  if (count >= 4 && aligned(from)) {
    const Four<T> four = *reinterpret_cast<const Four<T>*>(from);
#pragma unroll
    for (int i = 0; i < 4; i++) values.at[i] = to_float(four.at[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (i < count) values.at[i] = to_float(from[i]);
  }
  return values;
}

template <class T>
__device__ __forceinline__ void store_four(T* to, const Four<float>& values, int count) {
  Four<T> four;
#pragma unroll
  for (int i = 0; i < 4; i++) four.at[i] = from_float<T>(values.at[i]);
  if (count >= 4 && aligned(to)) {
    *reinterpret_cast<Four<T>*>(to) = four;
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (i < count) to[i] = four.at[i];
  }
}

// Where a thread's four are. Blocks: rows along grid x, the parts of a row along y.
struct Place {
  i64 row;
  int column;
  int count;  // from here to the end of the row; not positive: nothing to do

  __device__ __forceinline__ Place(const i64* rows, int width)
      : row(blockIdx.x), column(4 * (blockIdx.y * blockDim.x + threadIdx.x)),
        count(row < *rows ? width - column : 0) {}
};

// out[i] = x[index[i]], rows of `width`; NaN where x, of `limit` rows, has no such row.
template <class IN, class OUT>
__device__ __forceinline__ void take(OUT* out, const IN* x, const int* index, const i64* rows,
                                     int limit, int width) {
  const Place here(rows, width);
  if (here.count <= 0) return;
  const i64 from = index[here.row];
  Four<float> values = {{nanf(""), nanf(""), nanf(""), nanf("")}};
  if (from >= 0 && from < limit) values = load_four(x + from * width + here.column, here.count);
  store_four(out + here.row * width + here.column, values, here.count);
}
