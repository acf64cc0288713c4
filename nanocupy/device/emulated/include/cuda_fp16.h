// __half, to nearest with ties to even, as the GPU rounds.
#pragma once
#include "emulator.h"

struct alignas(2) __half {
  _Float16 value;
  __half() = default;
  explicit __half(float x) : value((_Float16)x) {}
  explicit operator float() const { return (float)value; }
};
struct alignas(4) __half2 {
  __half x, y;
};
typedef __half half;
typedef __half2 half2;

inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline float __half2float(__half x) { return (float)x.value; }
inline __half __ushort_as_half(unsigned short x) { return emulator_bits<__half>(x); }
inline unsigned short __half_as_ushort(__half x) { return emulator_bits<unsigned short>(x); }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 x) { return {__half(x.x), __half(x.y)}; }
inline float2 __half22float2(__half2 x) { return {float(x.x), float(x.y)}; }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline float __low2float(__half2 x) { return float(x.x); }
inline float __high2float(__half2 x) { return float(x.y); }
