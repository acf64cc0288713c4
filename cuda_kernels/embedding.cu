// The contract is nanocupy/kernels/embedding/__init__.py.
#include "rows.cuh"

// out f32 [rows, width], weight [count, width]: the table's rows from `first` on, tokens [rows].
// Zeros for the table's other rows; NaN where it, of `vocabulary` rows, has no such row.
template <class W>
__global__ void embedding(float* __restrict__ out, const W* __restrict__ weight,
                          const int* __restrict__ tokens, const i64* __restrict__ rows, int count,
                          int width, int first, int vocabulary) {
  const Place here(rows, width);
  if (here.count <= 0) return;
  const i64 token = tokens[here.row], from = token - first;
  const float other = token >= 0 && token < vocabulary ? 0.0f : nanf("");
  Four<float> values = {{other, other, other, other}};
  if (from >= 0 && from < count) values = load_four(weight + from * width + here.column, here.count);
  store_four(out + here.row * width + here.column, values, here.count);
}
