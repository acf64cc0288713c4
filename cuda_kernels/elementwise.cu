// The contracts are nanocupy/kernels/{elementwise,silu_mul,cast,take_rows}.py.
#include "rows.cuh"

// out = op(x, y), element by element; each has its own distance from row to row.
template <class OUT, class OP>
__device__ __forceinline__ void map(OUT* out, i64 out_stride, const float* x, i64 x_stride,
                                    const float* y, i64 y_stride, const i64* rows, int width,
                                    OP op) {
  const Place here(rows, width);
  if (here.count <= 0) return;
  const Four<float> a = load_four(x + here.row * x_stride + here.column, here.count);
  const Four<float> b = load_four(y + here.row * y_stride + here.column, here.count);
  Four<float> result;
#pragma unroll
  for (int i = 0; i < 4; i++) result.at[i] = op(a.at[i], b.at[i]);
  store_four(out + here.row * out_stride + here.column, result, here.count);
}

__device__ __forceinline__ float silu_of(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0 ? x * e : x) / (1 + e);
}

// x * sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 x^3): gelu by the tanh formula.
__device__ __forceinline__ float gelu_of(float x) {
  const float twice = 1.5957691216057308f * (x + 0.044715f * x * x * x);
  const float e = expf(-fabsf(twice));
  return (x < 0 ? x * e : x) / (1 + e);
}

// No __restrict__: out may be x or y.
__global__ void add(float* out, const float* x, const float* y, const i64* rows, int width,
                    i64 x_stride, i64 y_stride) {
  map(out, width, x, x_stride, y, y_stride, rows, width, [](float a, float b) { return a + b; });
}

__global__ void mul(float* out, const float* x, const float* y, const i64* rows, int width,
                    i64 x_stride, i64 y_stride) {
  map(out, width, x, x_stride, y, y_stride, rows, width, [](float a, float b) { return a * b; });
}

__global__ void silu(float* out, const float* x, const i64* rows, int width, i64 x_stride) {
  map(out, width, x, x_stride, x, x_stride, rows, width, [](float a, float) { return silu_of(a); });
}

__global__ void gelu(float* out, const float* x, const i64* rows, int width, i64 x_stride) {
  map(out, width, x, x_stride, x, x_stride, rows, width, [](float a, float) { return gelu_of(a); });
}

__global__ void scale(float* out, const float* x, const i64* rows, int width, i64 x_stride,
                      float factor) {
  map(out, width, x, x_stride, x, x_stride, rows, width,
      [factor](float a, float) { return a * factor; });
}

__global__ void add_bias(float* out, const float* bias, const i64* rows, int width,
                         i64 out_stride) {
  map(out, out_stride, out, out_stride, bias, 0, rows, width,
      [](float a, float b) { return a + b; });
}

template <class OUT>
__global__ void silu_mul(OUT* out, const float* gate, const float* up, const i64* rows, int width,
                         i64 gate_stride, i64 up_stride) {
  map(out, width, gate, gate_stride, up, up_stride, rows, width,
      [](float a, float b) { return silu_of(a) * b; });
}

template <class OUT>
__global__ void gelu_mul(OUT* out, const float* gate, const float* up, const i64* rows, int width,
                         i64 gate_stride, i64 up_stride) {
  map(out, width, gate, gate_stride, up, up_stride, rows, width,
      [](float a, float b) { return gelu_of(a) * b; });
}

template <class OUT>
__global__ void cast(OUT* out, const float* x, const i64* rows, int width, i64 x_stride) {
  map(out, width, x, x_stride, x, x_stride, rows, width, [](float a, float) { return a; });
}

template <class IN, class OUT>
__global__ void take_rows(OUT* __restrict__ out, const IN* __restrict__ x,
                          const int* __restrict__ index, const i64* __restrict__ rows, int limit,
                          int width) {
  take(out, x, index, rows, limit, width);
}
