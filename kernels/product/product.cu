// Sums of outer products of factors in memory.

struct Stored {
  const REAL* lefts;
  const REAL* rights;
  i64 rows, columns;
  ACC scale;

  __device__ ACC left(i64 i, i64 row) const { return scale * load(lefts, i * rows + row); }
  __device__ ACC right(i64 i, i64 column) const { return load(rights, i * columns + column); }
};

// w: (rows, columns) = decay w + scale sum_i left[i] right[i]^T, left (rank, rows), right
// (rank, columns).
extern "C" __global__ void __launch_bounds__(OUTER_COLUMNS)
    outer_update(REAL* w, const REAL* __restrict__ left, const REAL* __restrict__ right, i64 rank,
                 i64 rows, i64 columns, double scale, double decay, i64 decays) {
  Stored factors = {left, right, rows, columns, (ACC)scale};
  add_outer(w, factors, rank, rows, columns, (ACC)decay, decays != 0);
}
