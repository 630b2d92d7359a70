// Sums of outer products added to a matrix in one pass, whatever the factors come from.

#define OUTER_COLUMNS 128  // of a block's tile, one a thread
#define OUTER_ROWS 32
#define OUTER_RANK 16  // terms that are added at each pass over the tile
#define OUTER_STEP 8  // rows that a thread has under way

// w = decay w + sum_i left(i, row) right(i, column) for this block's tile of w (rows, columns).
// Factors has these two functions; each thread that calls them keeps what it gets in shared memory.
// With `decays` false w is not multiplied.
template <class Factors>
__device__ inline void add_outer(REAL* w, const Factors& factors, i64 rank, i64 rows, i64 columns,
                                 ACC decay, bool decays) {
  alignas(16) __shared__ ACC left[OUTER_RANK][OUTER_ROWS];
  __shared__ ACC right[OUTER_RANK][OUTER_COLUMNS];
  i64 across = (columns + OUTER_COLUMNS - 1) / OUTER_COLUMNS;
  i64 row = blockIdx.x / across * OUTER_ROWS;
  i64 column = blockIdx.x % across * OUTER_COLUMNS + threadIdx.x;
  for (i64 first = 0; first == 0 || first < rank; first += OUTER_RANK) {
    int terms = (int)(rank - first < OUTER_RANK ? rank - first : OUTER_RANK);
    __syncthreads();  // of the pass before
    for (int e = threadIdx.x; e < terms * OUTER_ROWS; e += OUTER_COLUMNS) {
      i64 r = row + e % OUTER_ROWS;
      left[e / OUTER_ROWS][e % OUTER_ROWS] = r < rows ? factors.left(first + e / OUTER_ROWS, r) : 0;
    }
    for (int i = 0; i < terms; ++i)
      right[i][threadIdx.x] = column < columns ? factors.right(first + i, column) : 0;
    __syncthreads();
    if (column >= columns) continue;
    for (int r = 0; r < OUTER_ROWS; r += OUTER_STEP) {
      ACC sums[OUTER_STEP];
#pragma unroll
      for (int j = 0; j < OUTER_STEP; ++j) {
        i64 place = (row + r + j) * columns + column;
        ACC value = row + r + j < rows ? load(w, place) : 0;
        sums[j] = decays && first == 0 ? decay * value : value;
      }
      for (int i = 0; i < terms; ++i)
#pragma unroll
        for (int j = 0; j < OUTER_STEP; ++j) sums[j] += left[i][r + j] * right[i][threadIdx.x];
#pragma unroll
      for (int j = 0; j < OUTER_STEP; ++j)
        if (row + r + j < rows) store(w, (row + r + j) * columns + column, sums[j]);
    }
  }
}
