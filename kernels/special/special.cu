// The error function, as the compiler has it, and the standard normal's quantile.

extern "C" __global__ void erf_of_all(const REAL* x, REAL* y, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) store(y, i, erf(load(x, i)));
}

// In double precision for every type, as cpu.py has it.
extern "C" __global__ void ndtri_of_all(const REAL* u, REAL* z, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count())
    store(z, i, (ACC)ndtri_of((double)load(u, i)));
}
