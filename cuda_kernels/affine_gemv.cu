// Few rows times an affine weight, on CUDA cores.
#include "affine_product.cuh"

// out f32 [rows, n], x [rows, k].
template <class T, class S, int BITS, int ROWS>
__global__ void affine_gemv(float* __restrict__ out, const T* __restrict__ x,
                            const unsigned* __restrict__ codes, const S* __restrict__ scales,
                            const S* __restrict__ biases, const i64* __restrict__ rows, int n,
                            int k, int group, i64 x_stride, i64 out_stride) {
  affine_product<T, S, BITS, ROWS>(out, x, codes, scales, biases, InOrder{*rows}, n, k, group,
                                   x_stride, out_stride);
}
