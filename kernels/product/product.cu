// Sums of outer products added to a matrix in one pass.

#define COLUMNS 128  // of a block's tile, one a thread
#define ROWS 32
#define RANK 16  // terms that are added at each pass over the tile
#define STEP 8  // rows that a thread has under way

// w: (rows, columns) = decay w + scale sum_i left[i] right[i]^T, left (rank, rows), right
// (rank, columns). Where `decays` is 0 w is not multiplied.
extern "C" __global__ void __launch_bounds__(COLUMNS)
    outer_update(REAL* w, const REAL* __restrict__ lefts, const REAL* __restrict__ rights, i64 rank,
                 i64 rows, i64 columns, double scale, double decay, i64 decays) {
  alignas(16) __shared__ ACC left[RANK][ROWS];
  __shared__ ACC right[RANK][COLUMNS];
  i64 across = (columns + COLUMNS - 1) / COLUMNS;
  i64 row = blockIdx.x / across * ROWS;
  i64 column = blockIdx.x % across * COLUMNS + threadIdx.x;
  for (i64 first = 0; first == 0 || first < rank; first += RANK) {
    int terms = (int)(rank - first < RANK ? rank - first : RANK);
    __syncthreads();  // of the pass before
    for (int e = threadIdx.x; e < terms * ROWS; e += COLUMNS) {
      i64 r = row + e % ROWS, i = e / ROWS;
      left[i][e % ROWS] = r < rows ? (ACC)scale * load(lefts, (first + i) * rows + r) : 0;
    }
    for (int i = 0; i < terms; ++i)
      right[i][threadIdx.x] = column < columns ? load(rights, (first + i) * columns + column) : 0;
    __syncthreads();
    if (column >= columns) continue;
    for (int r = 0; r < ROWS; r += STEP) {
      ACC sums[STEP];
#pragma unroll
      for (int j = 0; j < STEP; ++j) {
        i64 place = (row + r + j) * columns + column;
        ACC value = row + r + j < rows ? load(w, place) : 0;
        sums[j] = decays && first == 0 ? (ACC)decay * value : value;
      }
      for (int i = 0; i < terms; ++i)
#pragma unroll
        for (int j = 0; j < STEP; ++j) sums[j] += left[i][r + j] * right[i][threadIdx.x];
#pragma unroll
      for (int j = 0; j < STEP; ++j)
        if (row + r + j < rows) store(w, (row + r + j) * columns + column, sums[j]);
    }
  }
}
