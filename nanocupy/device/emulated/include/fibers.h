// One block of a CUDA kernel at a time, every thread of it a fiber with a stack of its own.
//
// A fiber runs until it waits for others (at a barrier or a warp operation) or returns; then the
// scheduler picks the next. The order is the launch's: forward, backward or random. Threads of a
// warp do not run in lockstep: what relies on that fails here.
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_THREAD__)
// The sanitizer sees every fiber as a thread. Switching orders nothing; barriers do.
#define UNSEEN __attribute__((no_sanitize_thread))
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#define TSAN(...) __VA_ARGS__
#else
#define UNSEEN
#define TSAN(...)
#endif
#if defined(__SANITIZE_ADDRESS__)
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
void __asan_poison_memory_region(const volatile void* address, size_t size);
void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}
#define ASAN(...) __VA_ARGS__
#else
#define ASAN(...)
#endif

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulator {

constexpr unsigned MOST_THREADS = 1024, LANES = 32, SLOT = 64;
constexpr size_t STACK = 256 * 1024, PAGE = 4096;
enum Status : uint8_t { READY, AT_BARRIER, IN_WARP, DONE };

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  uint3 thread{};
  unsigned index = 0;
  Status status = READY;
  const char* place = nullptr;  // of the barrier it waits at
  unsigned mask = 0;            // of the warp operation it waits in
  int vote = 0;
  TSAN(void* sanitizer = nullptr;)
  ASAN(void* fake_stack = nullptr; const void* bottom = nullptr; size_t size = STACK;)
#if !defined(__x86_64__)
  ucontext_t context;
#endif
};

// What the lanes of a warp hand each other. `given` becomes `taken` when all have arrived.
struct Warp {
  alignas(16) unsigned char given[LANES][SLOT], taken[LANES][SLOT];
  float matrices[2][512];  // what lanes gave to mma_sync, put together by the first that goes on
  bool gathered;
  char edge;
};

struct Launch {
  void (*call)(void*, void**);
  void* kernel;
  void** arguments;
};

struct State {
  Fiber scheduler;
  Fiber* current = &scheduler;
  Fiber* fibers = nullptr;
  Warp* warps = nullptr;
  uint3 block{};
  dim3 block_size, grid_size;
  void* dynamic_shared = nullptr;
  Launch launch{};
  char** stacks = nullptr;  // of the launch's threads: the caller's, made here when first wanted
  unsigned order = 0;
  uint64_t seed = 1;
  unsigned votes[3] = {};  // of the last barrier: how many, all, any
  char launch_edge = 0, barrier_edge = 0, end_edge = 0;
  bool failed = false;
  char message[512] = {};
};
static State state;

#if defined(__x86_64__)
extern "C" __attribute__((visibility("hidden"))) void emulator_swap(void** save, void* load);
asm(R"(.text
.globl emulator_swap
.hidden emulator_swap
.type emulator_swap,@function
emulator_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_swap,.-emulator_swap
)");
#endif

UNSEEN __attribute__((noinline)) static void switch_to(Fiber* to) {
  Fiber* from = state.current;
  state.current = to;
  ASAN(bool last = from->status == DONE && from != &state.scheduler;)
  ASAN(__sanitizer_start_switch_fiber(last ? nullptr : &from->fake_stack, to->bottom, to->size);)
  TSAN(__tsan_switch_to_fiber(to->sanitizer, 1);)
#if defined(__x86_64__)
  emulator_swap(&from->stack_pointer, to->stack_pointer);
#else
  swapcontext(&from->context, &to->context);
#endif
  ASAN(__sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);)
}

// Ends the launch with a message. From a fiber it does not return.
UNSEEN __attribute__((noinline, format(printf, 1, 2))) static void fail(const char* format, ...) {
  if (!state.failed) {
    va_list values;
    va_start(values, format);
    int end = vsnprintf(state.message, sizeof state.message, format, values);
    va_end(values);
    if (state.current != &state.scheduler && end >= 0 && end < (int)sizeof state.message)
      snprintf(state.message + end, sizeof state.message - end, " (block %u,%u,%u, thread %u)",
               state.block.x, state.block.y, state.block.z, state.current->index);
  }
  state.failed = true;
  if (state.current != &state.scheduler) {
    state.current->status = DONE;
    switch_to(&state.scheduler);
    abort();
  }
}

UNSEEN static void run_thread() {
  ASAN(Fiber* main = &state.scheduler;)
  ASAN(__sanitizer_finish_switch_fiber(nullptr, &main->bottom, &main->size);)
  TSAN(__tsan_acquire(&state.launch_edge);)
  state.launch.call(state.launch.kernel, state.launch.arguments);
  // Not the edge of the launch: one thread's end must not come before another's start.
  TSAN(__tsan_release(&state.end_edge);)
  state.current->status = DONE;
  switch_to(&state.scheduler);
  abort();
}

UNSEEN static void prepare(Fiber& fiber, unsigned index) {
  if (!state.stacks[index]) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char* memory = (char*)mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) return fail("no memory for the stacks of a block's threads");
    mprotect(memory, PAGE, PROT_NONE);  // a stack that overflows faults
    state.stacks[index] = memory + PAGE;
  }
  fiber.stack = state.stacks[index];
  ASAN(fiber.bottom = fiber.stack;)
  ASAN(__asan_unpoison_memory_region(fiber.stack, STACK);)
#if defined(__x86_64__)
  void** top = (void**)(fiber.stack + STACK - 64);
  *--top = nullptr;
  *--top = (void*)&run_thread;
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  fiber.stack_pointer = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run_thread, 0);
#endif
  const dim3 size = state.block_size;
  fiber.index = index;
  fiber.thread = {index % size.x, index / size.x % size.y, index / size.x / size.y};
  fiber.status = READY;
  TSAN(fiber.sanitizer = __tsan_create_fiber(0);)
}

UNSEEN static unsigned random_below(unsigned limit) {
  state.seed = state.seed * 6364136223846793005ull + 1442695040888963407ull;
  return (state.seed >> 33) % limit;
}

// 0 .. count - 1 in the order of the launch.
UNSEEN static void set_order(unsigned* order, unsigned count) {
  for (unsigned i = 0; i < count; i++) order[i] = state.order == 1 ? count - 1 - i : i;
}

UNSEEN static void shuffle(unsigned* order, unsigned count) {
  if (state.order < 2) return;
  for (unsigned i = count; i > 1; i--) {
    unsigned other = random_below(i), kept = order[i - 1];
    order[i - 1] = order[other];
    order[other] = kept;
  }
}

// Lets go the lanes of a warp whose whole mask has arrived at the same operation.
UNSEEN static bool release_warp(Fiber* lanes, unsigned count, Warp& warp) {
  bool any = false;
  for (unsigned i = 0; i < count; i++) {
    if (lanes[i].status != IN_WARP) continue;
    unsigned here = 0, mask = lanes[i].mask;
    for (unsigned j = 0; j < count; j++)
      if (lanes[j].status == IN_WARP && lanes[j].mask == mask) {
        here |= 1u << j;
        if (lanes[j].place != lanes[i].place)
          fail("lanes of one warp wait in %s and in %s", lanes[i].place, lanes[j].place);
      }
    if (here != mask) continue;
    any = true;
    warp.gathered = false;
    for (unsigned j = 0; j < count; j++)
      if (mask >> j & 1) {
        for (unsigned word = 0; word < SLOT / 8; word++)
          ((uint64_t*)warp.taken[j])[word] = ((uint64_t*)warp.given[j])[word];
        lanes[j].status = READY;
      }
  }
  return any;
}

UNSEEN static bool release_barrier(unsigned threads) {
  const char* place = state.fibers[0].place;
  unsigned count = 0;
  for (unsigned i = 0; i < threads; i++) {
    if (state.fibers[i].status != AT_BARRIER) return false;
    if (state.fibers[i].place != place)
      fail("threads of a block wait at different barriers, %s and %s", place,
           state.fibers[i].place);
    count += state.fibers[i].vote != 0;
  }
  state.votes[0] = count, state.votes[1] = count == threads, state.votes[2] = count > 0;
  for (unsigned i = 0; i < threads; i++) state.fibers[i].status = READY;
  return true;
}

UNSEEN static void explain_deadlock(unsigned threads) {
  for (unsigned i = 0; i < threads; i++)
    if (state.fibers[i].status == IN_WARP)
      return fail("thread %u waits in %s for lanes of mask %#x that never come", i,
                  state.fibers[i].place, state.fibers[i].mask);
  for (unsigned i = 0; i < threads; i++)
    if (state.fibers[i].status == AT_BARRIER)
      return fail("thread %u waits at the barrier %s, and other threads have returned", i,
                  state.fibers[i].place);
}

UNSEEN static void run_block(unsigned threads) {
  static unsigned order[MOST_THREADS];
  set_order(order, threads);
  unsigned done = 0;
  while (done < threads && !state.failed) {
    bool moved = false;
    shuffle(order, threads);
    for (unsigned i = 0; i < threads && !state.failed; i++) {
      Fiber& fiber = state.fibers[order[i]];
      if (fiber.status != READY) continue;
      moved = true;
      switch_to(&fiber);
      done += fiber.status == DONE;
    }
    for (unsigned first = 0; first < threads; first += LANES) {
      unsigned count = threads - first < LANES ? threads - first : LANES;
      moved |= release_warp(state.fibers + first, count, state.warps[first / LANES]);
    }
    moved |= release_barrier(threads);
    if (!moved && done < threads) explain_deadlock(threads);
  }
}

// Dynamic shared memory of exactly `size` bytes, filled with NaN before every block.
struct Shared {
  size_t size, room;
  unsigned char* memory;
  explicit Shared(size_t size) : size(size), room((size + 127) / 128 * 128 + 128) {
    memory = (unsigned char*)aligned_alloc(128, room);
    ASAN(__asan_poison_memory_region(memory + size, room - size);)
  }
  UNSEEN void poison() {
    for (size_t i = 0; i < size; i++) ((volatile unsigned char*)memory)[i] = 0xff;
  }
  ~Shared() {
    ASAN(__asan_unpoison_memory_region(memory, room);)
    free(memory);
  }
};

UNSEEN static void run_grid(dim3 grid, dim3 block, size_t shared_bytes) {
  const unsigned threads = block.x * block.y * block.z, blocks = grid.x * grid.y * grid.z;
  if (!threads || threads > MOST_THREADS) return fail("%u threads a block", threads);
  if (!state.fibers) state.fibers = new Fiber[MOST_THREADS];
  if (!state.warps) state.warps = new Warp[MOST_THREADS / LANES]();
  TSAN(state.scheduler.sanitizer = __tsan_get_current_fiber();)
  state.grid_size = grid, state.block_size = block;
  Shared shared(shared_bytes);
  state.dynamic_shared = shared.memory;
  unsigned* order = new unsigned[blocks];
  set_order(order, blocks);
  shuffle(order, blocks);
  for (unsigned i = 0; i < blocks && !state.failed; i++) {
    unsigned at = order[i];
    state.block = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
    shared.poison();
    for (unsigned thread = 0; thread < threads; thread++) prepare(state.fibers[thread], thread);
    TSAN(__tsan_release(&state.launch_edge);)
    if (!state.failed) run_block(threads);
    TSAN(__tsan_acquire(&state.end_edge);)
    TSAN(for (unsigned t = 0; t < threads; t++) __tsan_destroy_fiber(state.fibers[t].sanitizer);)
  }
  delete[] order;
}

// ---- how a fiber waits

UNSEEN __attribute__((noinline)) static void wait_for_block(const char* place, int vote = 0) {
  Fiber* self = state.current;
  self->status = AT_BARRIER, self->place = place, self->vote = vote;
  TSAN(__tsan_release(&state.barrier_edge);)
  switch_to(&state.scheduler);
  TSAN(__tsan_acquire(&state.barrier_edge);)
}

UNSEEN static inline unsigned lane() { return state.current->index % LANES; }
UNSEEN static inline Warp& warp() { return state.warps[state.current->index / LANES]; }

// `ordered`: also a memory barrier among the lanes. Shuffles and votes are none.
UNSEEN __attribute__((noinline)) static void wait_for_warp(const char* place, unsigned mask,
                                                           bool ordered) {
  Fiber* self = state.current;
  if (!(mask >> lane() & 1)) fail("%s: the calling lane is not in mask %#x", place, mask);
  self->status = IN_WARP, self->place = place, self->mask = mask;
  TSAN(if (ordered) __tsan_release(&warp().edge);)
  switch_to(&state.scheduler);
  TSAN(if (ordered) __tsan_acquire(&warp().edge);)
  (void)ordered;
}

// Bytes to and from slots, by words, so that no sanitizer takes them for the kernel's own.
UNSEEN __attribute__((noinline)) static void move_bytes(void* to, const void* from, size_t size) {
  for (size_t i = 0; i < size; i++) ((volatile uint8_t*)to)[i] = ((volatile uint8_t*)from)[i];
}

template <class T> static void give(const T& value, unsigned offset = 0) {
  static_assert(sizeof(T) <= SLOT);
  move_bytes(warp().given[lane()] + offset, &value, sizeof value);
}

template <class T> static T take(unsigned from, unsigned offset = 0) {
  T value;
  move_bytes(&value, warp().taken[from] + offset, sizeof value);
  return value;
}

}  // namespace emulator
