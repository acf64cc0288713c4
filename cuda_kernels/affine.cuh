// Affine weights: w = code * scale + bias, in groups along K; unsigned codes of 4 or 8 bits, packed
// into 32-bit words, the first in the lowest bits.
#pragma once
#include "common.cuh"

// Codes in 16 bytes. They lie in one group: groups are multiples of 32.
template <int BITS> constexpr int CHUNK = 128 / BITS;

// Eight codes from BITS / 4 words, each as the float 1/2 + code / 2^(BITS + 1): the code becomes
// the highest bits of a mantissa, which is cheaper than a conversion and loses a bit or two of 24.
template <int BITS> __device__ __forceinline__ void unpack(const unsigned* words, float* fraction) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if constexpr (BITS == 4) {  // the bytes 0x3f, code << 3, 0, 0
      const unsigned codes = (i % 2 ? words[0] >> 1 : words[0] << 3) & 0x78787878;
      fraction[i] = __uint_as_float(__byte_perm(codes, 0x3f, 0x4055 | i / 2 << 8));
    } else {
      const unsigned code = words[i / 4] >> i % 4 * 8 & 0xff;
      fraction[i] = __uint_as_float(0x3f000000 | code << 15);
    }
  }
}

// What a scale is multiplied by for w = scale * (fraction - 1/2) + bias.
template <int BITS> constexpr float STEPS = 2 << BITS;
