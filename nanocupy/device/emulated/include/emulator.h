// CUDA C++ as plain C++: what nvcc knows without any #include. Every kernel is compiled under this.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static  // blocks run one after another, so one instance will do
#define DYNAMIC_SHARED(name) \
  unsigned char* name = static_cast<unsigned char*>(emulator::state.dynamic_shared)

#define threadIdx (emulator::state.current->thread)
#define blockIdx (emulator::state.block)
#define blockDim (emulator::state.block_size)
#define gridDim (emulator::state.grid_size)
constexpr int warpSize = 32;

// ---- vectors

struct alignas(2) uchar2 { unsigned char x, y; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(4) ushort2 { unsigned short x, y; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct int3 { int x, y, z; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) longlong2 { long long x, y; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
struct alignas(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- barriers

#define EMULATOR_TEXT_(x) #x
#define EMULATOR_TEXT(x) EMULATOR_TEXT_(x)
#define EMULATOR_HERE(what) what " at " __FILE__ ":" EMULATOR_TEXT(__LINE__)
#define __syncthreads() emulator::wait_for_block(EMULATOR_HERE("__syncthreads"))
#define __syncthreads_count(vote) \
  (emulator::wait_for_block(EMULATOR_HERE("__syncthreads_count"), (vote)), \
   (int)emulator::state.votes[0])
#define __syncthreads_and(vote) \
  (emulator::wait_for_block(EMULATOR_HERE("__syncthreads_and"), (vote)), \
   (int)emulator::state.votes[1])
#define __syncthreads_or(vote) \
  (emulator::wait_for_block(EMULATOR_HERE("__syncthreads_or"), (vote)), \
   (int)emulator::state.votes[2])
inline void __syncwarp(unsigned mask = ~0u) { emulator::wait_for_warp("__syncwarp", mask, true); }
inline void __threadfence() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

// ---- warps

namespace emulator {

// Every lane of the mask gives a value and takes that of lane `from`.
template <class T> T exchange(const char* place, unsigned mask, T value, unsigned from) {
  give(value);
  wait_for_warp(place, mask, false);
  if (!(mask >> from & 1)) fail("%s: reads lane %u, which is not in mask %#x", place, from, mask);
  return take<T>(from);
}

// Every lane of the mask gets join(... join(value of the first lane, the second) ...).
template <class T, class F> T reduce(const char* place, unsigned mask, T value, F join) {
  give(value);
  wait_for_warp(place, mask, false);
  bool first = true;
  for (unsigned i = 0; i < LANES; i++)
    if (mask >> i & 1) {
      value = first ? take<T>(i) : join(value, take<T>(i));
      first = false;
    }
  return value;
}

}  // namespace emulator

template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  unsigned start = emulator::lane() / width * width;
  return emulator::exchange("__shfl_sync", mask, value, start + (from & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  unsigned lane = emulator::lane(), from = lane ^ bits;
  return emulator::exchange("__shfl_xor_sync", mask, value, from / width == lane / width ? from : lane);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  unsigned lane = emulator::lane(), from = lane + by;
  return emulator::exchange("__shfl_down_sync", mask, value, from / width == lane / width ? from : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  int lane = emulator::lane(), from = lane - (int)by;
  return emulator::exchange("__shfl_up_sync", mask, value, from >= lane / width * width ? from : lane);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  unsigned bit = vote ? 1u << emulator::lane() : 0;
  return emulator::reduce("__ballot_sync", mask, bit, [](unsigned a, unsigned b) { return a | b; });
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) == mask; }
#define EMULATOR_REDUCE(name, expression)                                                          \
  template <class T> T __reduce_##name##_sync(unsigned mask, T value) {                            \
    static_assert(std::is_integral_v<T> && sizeof(T) == 4);                                        \
    return emulator::reduce("__reduce_" #name "_sync", mask, value,                                \
                            [](T a, T b) -> T { return expression; });                             \
  }
EMULATOR_REDUCE(add, a + b)
EMULATOR_REDUCE(min, a < b ? a : b)
EMULATOR_REDUCE(max, a > b ? a : b)
EMULATOR_REDUCE(and, a & b)
EMULATOR_REDUCE(or, a | b)
EMULATOR_REDUCE(xor, a ^ b)

// ---- atomics: the compiler's own, which the sanitizers know

namespace emulator {
template <class T, class F> T update(T* at, F change) {
  T old, made;
  __atomic_load(at, &old, __ATOMIC_RELAXED);
  do made = change(old);
  while (!__atomic_compare_exchange(at, &old, &made, true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  return old;
}
template <class T> using Plain = std::common_type_t<T>;  // so that only the pointer is deduced
}  // namespace emulator

#define EMULATOR_ATOMIC(name, expression)                                             \
  template <class T> T atomic##name(T* at, emulator::Plain<T> value) {                \
    return emulator::update(at, [&](T old) -> T { return expression; });              \
  }
EMULATOR_ATOMIC(Add, old + value)
EMULATOR_ATOMIC(Sub, old - value)
EMULATOR_ATOMIC(Min, old < value ? old : value)
EMULATOR_ATOMIC(Max, old > value ? old : value)
EMULATOR_ATOMIC(Exch, value)
EMULATOR_ATOMIC(And, old & value)
EMULATOR_ATOMIC(Or, old | value)
EMULATOR_ATOMIC(Xor, old ^ value)
EMULATOR_ATOMIC(Inc, old >= value ? 0 : old + 1)
template <class T> T atomicCAS(T* at, emulator::Plain<T> expected, emulator::Plain<T> value) {
  return emulator::update(at, [&](T old) -> T { return old == expected ? value : old; });
}

// ---- memory and numbers

template <class T> T __ldg(const T* at) { return *at; }
template <class T> T __ldcs(const T* at) { return *at; }
template <class T> T __ldcg(const T* at) { return *at; }
template <class T> void __stcs(T* at, T value) { *at = value; }
template <class T> void __stcg(T* at, T value) { *at = value; }

template <class To, class From> To emulator_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline float __int_as_float(int x) { return emulator_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emulator_bits<float>(x); }
inline int __float_as_int(float x) { return emulator_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emulator_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return emulator_bits<double>(x); }
inline long long __double_as_longlong(double x) { return emulator_bits<long long>(x); }

inline float __expf(float x) { return expf(x); }
inline float __exp2f(float x) { return exp2f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1 / sqrtf(x); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline long long __float2ll_rn(float x) { return (long long)nearbyintf(x); }
inline long long __double2ll_rn(double x) { return (long long)nearbyint(x); }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __ll2float_rn(long long x) { return (float)x; }
inline float __double2float_rn(double x) { return (float)x; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned long long)x * y >> 32; }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  unsigned long long bytes = (unsigned long long)y << 32 | x;
  unsigned out = 0;
  for (int i = 0; i < 4; i++) {
    unsigned nibble = selector >> (4 * i) & 15, byte = bytes >> (8 * (nibble & 7)) & 255;
    if (nibble & 8) byte = byte & 128 ? 255 : 0;
    out |= byte << (8 * i);
  }
  return out;
}

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  return (T)a < (T)b ? (T)b : (T)a;
}
inline void __trap() { emulator::fail("__trap"); }
inline void __nanosleep(unsigned) {}
