// The contract is nanocupy/kernels/embedding.py.
#include "rows.cuh"

// out f32 [rows, width], weight [vocabulary, width], tokens [rows].
template <class W>
__global__ void embedding(float* __restrict__ out, const W* __restrict__ weight,
                          const int* __restrict__ tokens, const i64* __restrict__ rows,
                          int vocabulary, int width) {
  take(out, weight, tokens, rows, vocabulary, width);
}
