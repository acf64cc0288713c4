// How Python calls kernels: a table of them, with their parameters as letters.
#pragma once
#include <stdint.h>
#include <type_traits>
#include <utility>

#include "fibers.h"

namespace emulator {

template <class T> constexpr char letter() {
  if constexpr (std::is_pointer_v<T>) return 'p';
  else if constexpr (std::is_same_v<T, float>) return 'f';
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 4) return 'i';
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 8) return 'l';
  else static_assert(!sizeof(T), "a kernel's parameter is a pointer, int, long long or float");
}

template <class... P, size_t... I>
void call_with(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<P>*>(arguments[I])...);
}

template <class... P> void call(void* kernel, void** arguments) {
  call_with(reinterpret_cast<void (*)(P...)>(kernel), arguments, std::index_sequence_for<P...>{});
}

struct Entry {
  void (*call)(void*, void**);
  void* kernel;
  const char* letters;
};

template <class... P> struct Letters {
  static constexpr char text[] = {letter<P>()..., 0};
};

template <class... P> Entry entry(void (*kernel)(P...)) {
  return {&call<P...>, reinterpret_cast<void*>(kernel), Letters<P...>::text};
}

static int run(const Entry& entry, const unsigned* grid, const unsigned* block, size_t shared,
               void** arguments, unsigned order, uint64_t seed, char** stacks,
               const char** message) {
  state.launch = {entry.call, entry.kernel, arguments};
  state.stacks = stacks;
  state.order = order, state.seed = seed, state.failed = false;
  run_grid({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared);
  *message = state.message;
  return state.failed;
}

}  // namespace emulator

#define EMULATED_KERNELS(...)                                                                     \
  static const emulator::Entry emulator_entries[] = {__VA_ARGS__};                                \
  extern "C" __attribute__((visibility("default"))) int emulated_count() {                        \
    return sizeof emulator_entries / sizeof emulator_entries[0];                                  \
  }                                                                                               \
  extern "C" __attribute__((visibility("default"))) const char* emulated_letters(int index) {     \
    return emulator_entries[index].letters;                                                       \
  }                                                                                               \
  extern "C" __attribute__((visibility("default"))) int emulated_launch(                          \
      int index, const unsigned* grid, const unsigned* block, size_t shared, void** arguments,    \
      unsigned order, uint64_t seed, char** stacks, const char** message) {                       \
    return emulator::run(emulator_entries[index], grid, block, shared, arguments, order, seed,    \
                         stacks, message);                                                        \
  }
