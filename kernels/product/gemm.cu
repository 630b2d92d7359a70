// C = alpha op(A) op(B), or that added to beta C, for batches of matrices; of a long sum that makes
// few tiles, slices are made at the same time and added in their order.

struct Store {
  REAL* entries;
  ACC* sums;  // where there are slices, else null
  int pitch;
  double alpha, beta;
  i64 adds;

  __device__ void operator()(int row, int column, ACC sum) const {
    i64 i = (i64)row * pitch + column;
    if (sums) {
      sums[i] = sum;
      return;
    }
    ACC value = (ACC)alpha * sum;
    store(entries, i, adds ? value + (ACC)beta * load(entries, i) : value);
  }
};

template <class T, bool LEFT_INNER, bool RIGHT_INNER>
__device__ inline void product(const REAL* a, const REAL* b, REAL* c, i64 rows, i64 columns,
                               i64 inner, double alpha, double beta, i64 adds, ACC* sums,
                               i64 slice) {
  int across = (int)((columns + T::COLUMNS - 1) / T::COLUMNS);
  int row = blockIdx.x / across * T::ROWS, column = blockIdx.x % across * T::COLUMNS;
  i64 item = blockIdx.y, size = rows * columns;  // item: of the batch
  int m = (int)rows, n = (int)inner, p = (int)columns;
  MatrixOperand<LEFT_INNER> left = {a + item * rows * inner, m, n, LEFT_INNER ? n : m};
  MatrixOperand<RIGHT_INNER> right = {b + item * inner * columns, p, n, RIGHT_INNER ? n : p};
  Store result = {c + item * size, nullptr, p, alpha, beta, adds};
  if (sums) result.sums = sums + (blockIdx.z * (i64)gridDim.y + item) * size;
  i64 begin = blockIdx.z * slice, end = begin + slice < inner ? begin + slice : inner;
  multiply<T>(left, right, result, row, column, m, p, (int)begin, (int)end);
}

// a: (batch, rows, inner), or with the suffix t (batch, inner, rows); b: (batch, inner, columns),
// or with t (batch, columns, inner); c: (batch, rows, columns). Two letters: of a, then of b.
// blockIdx.z is a slice of the sum, of `slice` positions; with more than one the results are
// sums (slices, batch, rows, columns) for gemm_slices.
#define GEMM(NAME, T, LEFT_INNER, RIGHT_INNER)                                                    \
  extern "C" __global__ void __launch_bounds__(256) NAME(                                         \
      const REAL* __restrict__ a, const REAL* __restrict__ b, REAL* c, i64 rows, i64 columns,     \
      i64 inner, double alpha, double beta, i64 adds, ACC* sums, i64 slice) {                     \
    product<T, LEFT_INNER, RIGHT_INNER>(a, b, c, rows, columns, inner, alpha, beta, adds, sums,   \
                                        slice);                                                   \
  }

GEMM(gemm_large_nn, Large, true, false)
GEMM(gemm_large_tn, Large, false, false)
GEMM(gemm_large_nt, Large, true, true)
GEMM(gemm_large_tt, Large, false, true)
GEMM(gemm_tall_nn, Tall, true, false)
GEMM(gemm_tall_tn, Tall, false, false)
GEMM(gemm_tall_nt, Tall, true, true)
GEMM(gemm_tall_tt, Tall, false, true)
GEMM(gemm_small_nn, Small, true, false)
GEMM(gemm_small_tn, Small, false, false)
GEMM(gemm_small_nt, Small, true, true)
GEMM(gemm_small_tt, Small, false, true)

extern "C" __global__ void gemm_slices(const ACC* __restrict__ sums, REAL* c, i64 slices, i64 size,
                                       double alpha, double beta, i64 adds) {
  for (i64 e = thread_index(); e < size; e += thread_count()) {
    ACC total = 0;
    for (i64 i = 0; i < slices; ++i) total += sums[i * size + e];
    ACC value = (ACC)alpha * total;
    store(c, e, adds ? value + (ACC)beta * load(c, e) : value);
  }
}
