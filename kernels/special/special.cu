// The error function, as the compiler has it, and the standard normal's quantile.

extern "C" __global__ void erf_of_all(const REAL* x, REAL* y, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) store(y, i, erf(load(x, i)));
}

// CuPy has float compiled with -ftz, by which denormal numbers, as operands too, are zeros.
__device__ inline double exactly(double x) { return x; }
__device__ inline double exactly(float x) {
  u32 bits = __float_as_uint(x);
  if (bits & 0x7f800000u) return x;
  double size = (bits & 0x7fffffu) * 0x1p-149;
  return bits >> 31 ? -size : size;
}

// In double precision for every type, as cpu.py has it.
extern "C" __global__ void ndtri_of_all(const REAL* u, REAL* z, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count())
    store(z, i, (ACC)ndtri_of(exactly(load(u, i))));
}
