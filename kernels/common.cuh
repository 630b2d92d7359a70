// What all sources share. It stands before each of them in the text that is compiled. REAL, the type
// of arrays, and ACC, what is computed in, are given by the compiler's options; a source without
// them handles words alone.

#ifdef HALF
#include <cuda_fp16.h>
#endif

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned char u8;

#define FULL 0xffffffffu  // all lanes of a warp
#define WARP 32

__device__ inline i64 thread_index() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline i64 thread_count() { return (i64)gridDim.x * blockDim.x; }

#ifdef REAL

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline void narrow(float x, float* y) { *y = x; }
__device__ inline void narrow(double x, double* y) { *y = x; }
#ifdef HALF
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline void narrow(float x, __half* y) { *y = __float2half(x); }
#endif

__device__ inline ACC load(const REAL* p, i64 i) { return widen(p[i]); }
__device__ inline void store(REAL* p, i64 i, ACC value) { narrow(value, p + i); }

__device__ inline ACC infinity() { return (ACC)__int_as_float(0x7f800000); }
__device__ inline ACC not_a_number() { return (ACC)__int_as_float(0x7fffffff); }

__device__ inline ACC warp_sum(ACC v) {
  for (int lane = WARP / 2; lane; lane /= 2) v += __shfl_xor_sync(FULL, v, lane);
  return v;
}

// The larger of two; NaN where either is.
__device__ inline ACC larger(ACC a, ACC b) { return a > b || a != a ? a : b; }

__device__ inline ACC warp_max(ACC v) {
  for (int lane = WARP / 2; lane; lane /= 2) v = larger(v, __shfl_xor_sync(FULL, v, lane));
  return v;
}

// Sum and maximum over a block of THREADS, a multiple of 32, for every thread of it.
template <int THREADS>
__device__ inline ACC block_sum(ACC v) {
  __shared__ ACC parts[THREADS / WARP];
  v = warp_sum(v);
  __syncthreads();  // of an earlier call
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = v;
  __syncthreads();
  ACC total = 0;
  for (int i = 0; i < THREADS / WARP; ++i) total += parts[i];
  return total;
}

template <int THREADS>
__device__ inline ACC block_max(ACC v) {
  __shared__ ACC parts[THREADS / WARP];
  v = warp_max(v);
  __syncthreads();
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = v;
  __syncthreads();
  ACC most = parts[0];
  for (int i = 1; i < THREADS / WARP; ++i) most = larger(most, parts[i]);
  return most;
}

#endif
