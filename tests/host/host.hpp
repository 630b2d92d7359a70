// CUDA's words for a C++ compiler of the host. A launch runs block after block; the threads of a
// block are fibers that take turns at barriers and warp exchanges, so that every source under
// kernels/ runs as it stands. Odd blocks start their threads from the last one: an exchange through
// shared memory that lacks a barrier gives wrong numbers in one of the two orders.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __device__
#define __global__
#define __host__
#define __constant__ static const
#define __shared__ static  // one block runs at a time
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __ldg(pointer) (*(pointer))

struct uint3 {
  unsigned x, y, z;
};
typedef uint3 dim3;
static uint3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

namespace host {

enum State { NEW, RUNNING, AT_BLOCK, AT_WARP, DONE };

const size_t STACK = 1 << 17;

struct Fiber {
  ucontext_t context;
  void* stack;
  int thread;
};

static void (*body)(void**);
static void** arguments;
static const char* failure;
static std::vector<State> state;     // of each thread of the block
static std::vector<Fiber*> holder;   // the fiber in which a thread waits
static std::vector<Fiber*> resting;  // fibers without a thread
static std::vector<uint64_t> slot;   // what a thread offers in a warp exchange
static ucontext_t scheduler;
static Fiber* current;
static int threads, started;
static bool backwards;

// What threads offer to tensor cores in instructions of even and odd number, and how many they had.
struct Fragments {
  uint32_t left[4], right[2];
};
static std::vector<Fragments> offered[2];
static std::vector<unsigned> instructions;
#if defined(__SANITIZE_ADDRESS__)
static const void* main_stack;
static size_t main_size;
#endif

inline void place(int thread) {
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y,
               thread / (blockDim.x * blockDim.y)};
}

inline void to_scheduler() {
  Fiber* self = current;
#if defined(__SANITIZE_ADDRESS__)
  void* fake;
  __sanitizer_start_switch_fiber(&fake, main_stack, main_size);
#endif
  swapcontext(&self->context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &main_stack, &main_size);
#endif
}

inline void to_fiber(Fiber* fiber) {
  current = fiber;
#if defined(__SANITIZE_ADDRESS__)
  void* fake;
  __sanitizer_start_switch_fiber(&fake, fiber->stack, STACK);
#endif
  swapcontext(&scheduler, &fiber->context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

// A fiber runs one thread after the other, until one has to wait in it.
inline void work() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &main_stack, &main_size);
#endif
  for (;;) {
    while (started < threads) {
      int thread = backwards ? threads - 1 - started : started;
      ++started;
      current->thread = thread;
      state[thread] = RUNNING;
      place(thread);
      body(arguments);
      state[thread] = DONE;
    }
    resting.push_back(current);
    to_scheduler();
  }
}

inline Fiber* fresh() {
  if (!resting.empty()) {
    Fiber* fiber = resting.back();
    resting.pop_back();
    return fiber;
  }
  Fiber* fiber = new Fiber;
  fiber->stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = STACK;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, work, 0);
  return fiber;
}

inline void wait(State where) {
  int thread = current->thread;
  state[thread] = where;
  holder[thread] = current;
  to_scheduler();
  place(thread);
}

// Let threads [first, last) go on if all of them wait at the same kind of place.
inline bool release(int first, int last, State where) {
  for (int i = first; i < last; ++i)
    if (state[i] != where) return false;
  for (int n = 0; n < last - first; ++n) {
    int i = backwards ? last - 1 - n : first + n;
    state[i] = RUNNING;
    to_fiber(holder[i]);
  }
  return true;
}

inline void run_block() {
  state.assign(threads, NEW);
  holder.assign(threads, nullptr);
  slot.assign(threads, 0);
  instructions.assign(threads, 0);
  for (auto& all : offered) all.assign(threads, Fragments());
  started = 0;
  while (started < threads) to_fiber(fresh());
  for (;;) {
    bool moved = release(0, threads, AT_BLOCK);
    for (int first = 0; first < threads; first += warpSize) {
      int last = first + warpSize < threads ? first + warpSize : threads;
      moved |= release(first, last, AT_WARP);
    }
    if (moved) continue;
    for (int i = 0; i < threads; ++i)
      if (state[i] != DONE) failure = "threads of a block wait at different places";
    return;
  }
}

// Take denormal numbers as zeros, operands and results, while this lives.
struct Flushing {
#if defined(__SSE2__)
  unsigned before = _mm_getcsr();
  explicit Flushing(bool wanted) {
    if (wanted) _mm_setcsr(before | 0x8040);
  }
  ~Flushing() { _mm_setcsr(before); }
#else
  explicit Flushing(bool) {}
#endif
};

// flush: as CuPy compiles float, which is all that an instance computes in; a fiber keeps the mode
// of the launch that made it, and all launches of a library have one.
inline const char* launch(void (*kernel)(void**), const unsigned* sizes, void** given, bool flush) {
  Flushing mode(flush);
  body = kernel;
  arguments = given;
  failure = nullptr;
  gridDim = {sizes[0], sizes[1], sizes[2]};
  blockDim = {sizes[3], sizes[4], sizes[5]};
  threads = (int)(blockDim.x * blockDim.y * blockDim.z);
  if (threads > 1024) return "more than 1024 threads in a block";
  for (unsigned z = 0; z < gridDim.z; ++z)
    for (unsigned y = 0; y < gridDim.y; ++y)
      for (unsigned x = 0; x < gridDim.x && !failure; ++x) {
        blockIdx = {x, y, z};
        backwards = (x + y + z) % 2;
        run_block();
      }
  return failure;
}

template <typename T>
T exchange(unsigned mask, T value, int source) {
  int thread = current->thread, first = thread / warpSize * warpSize;
  if (mask != 0xffffffffu || first + warpSize > threads) {
    failure = "a warp exchange that is not among 32 threads";
    return value;
  }
  memcpy(&slot[thread], &value, sizeof(T));
  wait(AT_WARP);
  T found = value;
  if (source >= 0 && source < warpSize) memcpy(&found, &slot[first + source], sizeof(T));
  wait(AT_WARP);
  return found;
}

inline int lane() { return current->thread % warpSize; }

template <typename To, typename From>
To bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  memcpy(&y, &x, sizeof(To));
  return y;
}

// --- tensor cores, where a word holds one entry of tf32 or PER_WORD = 2 of bfloat16

// The word of PER_WORD entries: to tf32 ties go away from zero, to bfloat16 to even. Its low 13
// bits are not the entry's.
template <int PER_WORD>
uint32_t rounded(const float* x) {
  uint32_t word = 0;
  for (int e = 0; e < PER_WORD; ++e) {
    uint32_t whole = bits<uint32_t>(x[e]), part;
    if (x[e] != x[e])
      part = 0x7fffffff;
    else
      part = whole + (PER_WORD == 1 ? 0x1000 : 0x7fff + (whole >> 16 & 1));
    word |= PER_WORD == 1 ? part : part >> 16 << 16 * e;
  }
  return word;
}

// Entry `e` of a word.
template <int PER_WORD>
float entry(uint32_t word, int e) {
  return bits<float>(PER_WORD == 1 ? word & 0xffffe000 : word >> 16 * e << 16);
}

// Add to a lane's sums the product of 16 rows and 8 columns that the warp's words make, by the PTX
// ISA's tables for m16n8k8 with tf32 and m16n8k16 with bf16: entry (row, k) of the left operand is
// in lane 4 (row % 8) + k / PER_WORD % 4, in its word row / 8, or 2 + row / 8 from the middle of
// the sum on; entry (k, column) of the right one in lane 4 column + k / PER_WORD % 4.
//
// A thread waits once: what it offers stays until it has waited in its next instruction too.
template <int PER_WORD>
void add_product(float* sums, const uint32_t* left, const uint32_t* right) {
  int thread = current->thread, first = thread / warpSize * warpSize;
  if (first + warpSize > threads) {
    failure = "tensor cores need 32 threads";
    return;
  }
  std::vector<Fragments>& all = offered[instructions[thread]++ % 2];
  memcpy(all[thread].left, left, sizeof(Fragments::left));
  memcpy(all[thread].right, right, sizeof(Fragments::right));
  wait(AT_WARP);
  int lane = thread % warpSize;
  for (int i = 0; i < 4; ++i) {
    int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 8 * PER_WORD; ++k) {
      int place = first + k / PER_WORD % 4, middle = k / (4 * PER_WORD);
      uint32_t a = all[place + row % 8 * 4].left[row / 8 + 2 * middle];
      uint32_t b = all[place + column * 4].right[middle];
      sums[i] += entry<PER_WORD>(a, k % PER_WORD) * entry<PER_WORD>(b, k % PER_WORD);
    }
  }
}

}  // namespace host

inline void __syncthreads() { host::wait(host::AT_BLOCK); }
inline void __syncwarp(unsigned = 0xffffffffu) { host::wait(host::AT_WARP); }
inline void __threadfence() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
  return host::exchange(mask, value, source & 31);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int other) {
  return host::exchange(mask, value, host::lane() ^ other);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by) {
  return host::exchange(mask, value, host::lane() + (int)by);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  return host::exchange(mask, value, host::lane() - (int)by);
}

template <typename T>
T atomicAdd(T* place, T value) {
  T old = *place;
  *place = old + value;
  return old;
}
template <typename T>
T atomicMax(T* place, T value) {
  T old = *place;
  if (value > old) *place = value;
  return old;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __float_as_int(float x) { return host::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return host::bits<unsigned>(x); }
inline float __int_as_float(int x) { return host::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return host::bits<float>(x); }
inline long long __double_as_longlong(double x) { return host::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return host::bits<double>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }

#define HOST_CHOICE(type)                                  \
  inline type max(type a, type b) { return a > b ? a : b; } \
  inline type min(type a, type b) { return a < b ? a : b; }
HOST_CHOICE(int)
HOST_CHOICE(unsigned)
HOST_CHOICE(long long)
HOST_CHOICE(unsigned long long)
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
