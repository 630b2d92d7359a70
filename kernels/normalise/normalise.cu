// (x - mean) / sqrt(variance + eps) over some axes, and its tangents. The variance is the mean of
// squares about the mean, never a difference of two large numbers.
//
// An array has the axes (outer, m, groups, size), and its statistics are over m and size. Either a
// warp or a block takes one statistic after the other (rows), or tiles of WARP columns are cut into
// chunks of rows, whose sums the next launch adds up (columns): then neighbouring threads read
// neighbours in memory where the statistics are of single columns.

#define LANES 8  // rows that a tile's block goes through at once

// --- rows

// Where entry i of a statistic's m * size lies.
struct Places {
  i64 start, groups, size;
  __device__ Places(i64 statistic, i64 m, i64 groups, i64 size) : groups(groups), size(size) {
    start = (statistic / groups * m * groups + statistic % groups) * size;
  }
  __device__ i64 operator[](i64 i) const {
    return start + (groups == 1 ? i : i / size * groups * size + i % size);
  }
};

template <int WIDTH>
__device__ inline void rows(const REAL* x, REAL* y, REAL* mean, REAL* variance, i64 outer, i64 m,
                            i64 groups, i64 size, double eps) {
  const i64 n = m * size;
  for (i64 row = first_row(); row < outer * groups; row += row_step()) {
    const Places at(row, m, groups, size);
    ACC sum = 0, squares = 0;
    for (i64 i = threadIdx.x; i < n; i += WIDTH) sum += load(x, at[i]);
    const ACC centre = row_sum<WIDTH>(sum) / n;
    for (i64 i = threadIdx.x; i < n; i += WIDTH) {
      ACC d = load(x, at[i]) - centre;
      squares += d * d;
    }
    squares = row_sum<WIDTH>(squares) / n;
    const ACC scale = 1 / sqrt(squares + (ACC)eps);
    for (i64 i = threadIdx.x; i < n; i += WIDTH)
      store(y, at[i], (load(x, at[i]) - centre) * scale);
    if (threadIdx.x == 0) {
      store(mean, row, centre);
      store(variance, row, squares);
    }
  }
}

template <int WIDTH>
__device__ inline void rows_tangent(const REAL* t, const REAL* y, const REAL* variance,
                                    REAL* turned, i64 outer, i64 m, i64 groups, i64 size,
                                    i64 directions, double eps) {
  const i64 n = m * size, entries = outer * groups * n;
  for (i64 row = first_row(); row < outer * groups; row += row_step()) {
    const Places at(row, m, groups, size);
    const ACC scale = 1 / sqrt(load(variance, row) + (ACC)eps);
    for (i64 k = blockIdx.y; k < directions; k += gridDim.y) {
      const REAL* from = t + k * entries;
      ACC sum = 0, along = 0;
      for (i64 i = threadIdx.x; i < n; i += WIDTH) {
        ACC moved = load(from, at[i]);
        sum += moved;
        along += load(y, at[i]) * moved;
      }
      const ACC shift = row_sum<WIDTH>(sum) / n, slope = row_sum<WIDTH>(along) / n;
      for (i64 i = threadIdx.x; i < n; i += WIDTH)
        store(turned + k * entries, at[i],
              (load(from, at[i]) - shift - load(y, at[i]) * slope) * scale);
    }
  }
}

#define ROWS(width, WIDTH)                                                                        \
  extern "C" __global__ void rows_##width(const REAL* x, REAL* y, REAL* mean, REAL* variance,     \
                                          i64 outer, i64 m, i64 groups, i64 size, double eps) {   \
    rows<WIDTH>(x, y, mean, variance, outer, m, groups, size, eps);                               \
  }                                                                                               \
  extern "C" __global__ void rows_tangent_##width(                                                \
      const REAL* t, const REAL* y, const REAL* variance, REAL* turned, i64 outer, i64 m,         \
      i64 groups, i64 size, i64 directions, double eps) {                                         \
    rows_tangent<WIDTH>(t, y, variance, turned, outer, m, groups, size, directions, eps);         \
  }

ROWS(warp, WARP)
ROWS(block, BLOCK)

// --- columns: a block is WARP x LANES; the grid has tiles, chunks of `step` rows, and `outer`

__device__ inline i64 tile_column() { return (i64)blockIdx.x * WARP + threadIdx.x; }

// Sum over the lanes of a tile, for every thread of a column.
__device__ inline ACC lane_sum(ACC v) {
  __shared__ ACC parts[LANES][WARP + 1];
  __syncthreads();  // of an earlier call
  parts[threadIdx.y][threadIdx.x] = v;
  __syncthreads();
  ACC total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += parts[lane][threadIdx.x];
  return total;
}

// The mean, of `count` entries, over a column's group of `size` columns and all chunks.
// parts: (chunks, outer, width).
__device__ inline ACC group_mean(const ACC* parts, i64 chunks, i64 o, i64 outer, i64 width,
                                 i64 size, i64 count) {
  const i64 column = tile_column();
  ACC sum = 0;
  if (column < width)
    for (i64 i = threadIdx.y; i < chunks * size; i += LANES)
      sum += parts[(i / size * outer + o) * width + column / size * size + i % size];
  return lane_sum(sum) / count;
}

__device__ inline i64 chunk_end(i64 step, i64 m) {
  return (blockIdx.y + 1) * step < m ? (blockIdx.y + 1) * step : m;
}

extern "C" __global__ void column_sums(const REAL* x, ACC* sums, i64 outer, i64 m, i64 width,
                                       i64 step) {
  const i64 column = tile_column();
  for (i64 o = blockIdx.z; o < outer; o += gridDim.z) {
    ACC sum = 0;
    if (column < width)
      for (i64 i = blockIdx.y * step + threadIdx.y; i < chunk_end(step, m); i += LANES)
        sum += load(x, (o * m + i) * width + column);
    sum = lane_sum(sum);
    if (threadIdx.y == 0 && column < width) sums[(blockIdx.y * outer + o) * width + column] = sum;
  }
}

extern "C" __global__ void column_squares(const REAL* x, const ACC* sums, ACC* squares, i64 outer,
                                          i64 m, i64 width, i64 size, i64 step) {
  const i64 column = tile_column();
  for (i64 o = blockIdx.z; o < outer; o += gridDim.z) {
    const ACC centre = group_mean(sums, gridDim.y, o, outer, width, size, m * size);
    ACC sum = 0;
    if (column < width)
      for (i64 i = blockIdx.y * step + threadIdx.y; i < chunk_end(step, m); i += LANES) {
        ACC d = load(x, (o * m + i) * width + column) - centre;
        sum += d * d;
      }
    sum = lane_sum(sum);
    if (threadIdx.y == 0 && column < width)
      squares[(blockIdx.y * outer + o) * width + column] = sum;
  }
}

extern "C" __global__ void columns(const REAL* x, const ACC* sums, const ACC* squares, REAL* y,
                                   REAL* mean, REAL* variance, i64 outer, i64 m, i64 width,
                                   i64 size, i64 step, double eps) {
  const i64 column = tile_column();
  for (i64 o = blockIdx.z; o < outer; o += gridDim.z) {
    const ACC centre = group_mean(sums, gridDim.y, o, outer, width, size, m * size);
    const ACC spread = group_mean(squares, gridDim.y, o, outer, width, size, m * size);
    const ACC scale = 1 / sqrt(spread + (ACC)eps);
    if (column >= width) continue;
    for (i64 i = blockIdx.y * step + threadIdx.y; i < chunk_end(step, m); i += LANES) {
      i64 at = (o * m + i) * width + column;
      store(y, at, (load(x, at) - centre) * scale);
    }
    if (blockIdx.y == 0 && threadIdx.y == 0 && column % size == 0) {
      store(mean, (o * width + column) / size, centre);
      store(variance, (o * width + column) / size, spread);
    }
  }
}

// Sums of t, where they are wanted, and of t * y. t has `repeats` arrays of y's shape.
extern "C" __global__ void column_products(const REAL* t, const REAL* y, ACC* sums, ACC* products,
                                           i64 outer, i64 repeats, i64 m, i64 width, i64 step) {
  const i64 column = tile_column();
  for (i64 o = blockIdx.z; o < outer * repeats; o += gridDim.z) {
    ACC sum = 0, product = 0;
    if (column < width)
      for (i64 i = blockIdx.y * step + threadIdx.y; i < chunk_end(step, m); i += LANES) {
        ACC moved = load(t, (o * m + i) * width + column);
        sum += moved;
        product += moved * load(y, (o % outer * m + i) * width + column);
      }
    product = lane_sum(product);
    if (sums) sum = lane_sum(sum);
    if (threadIdx.y == 0 && column < width) {
      i64 at = (blockIdx.y * outer * repeats + o) * width + column;
      products[at] = product;
      if (sums) sums[at] = sum;
    }
  }
}

extern "C" __global__ void columns_tangent(const REAL* t, const REAL* y, const REAL* variance,
                                           const ACC* sums, const ACC* products, REAL* turned,
                                           i64 outer, i64 repeats, i64 m, i64 width, i64 size,
                                           i64 step, double eps) {
  const i64 column = tile_column(), all = outer * repeats;
  for (i64 o = blockIdx.z; o < all; o += gridDim.z) {
    const ACC shift = group_mean(sums, gridDim.y, o, all, width, size, m * size);
    const ACC slope = group_mean(products, gridDim.y, o, all, width, size, m * size);
    if (column >= width) continue;
    const ACC scale = 1 / sqrt(load(variance, (o % outer * width + column) / size) + (ACC)eps);
    for (i64 i = blockIdx.y * step + threadIdx.y; i < chunk_end(step, m); i += LANES) {
      ACC along = load(y, (o % outer * m + i) * width + column) * slope;
      i64 at = (o * m + i) * width + column;
      store(turned, at, (load(t, at) - shift - along) * scale);
    }
  }
}

// Sum parts (chunks, n) over their chunks.
extern "C" __global__ void sum_chunks(const ACC* parts, REAL* y, i64 chunks, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    ACC sum = 0;
    for (i64 chunk = 0; chunk < chunks; ++chunk) sum += parts[chunk * n + i];
    store(y, i, sum);
  }
}

// --- a number for each of the last axes' entries, and another added

// y = y * scale + shift and t = t * scale + y * t_scale + t_shift, in place; where `set` is 0, t was
// not given, and only gets the last two. Null is a tangent of 0.
extern "C" __global__ void scale_and_shift(REAL* y, REAL* t, const REAL* scale, const REAL* shift,
                                           const REAL* t_scale, const REAL* t_shift, i64 n,
                                           i64 period, i64 directions, i64 set) {
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    const i64 c = period == n ? i : i % period;
    const ACC value = load(y, i), factor = load(scale, c);
    for (i64 k = 0; k < directions; ++k) {
      ACC moved = set ? load(t, k * n + i) * factor : 0;
      if (t_scale) moved += value * load(t_scale, k * period + c);
      if (t_shift) moved += load(t_shift, k * period + c);
      store(t, k * n + i, moved);
    }
    store(y, i, value * factor + load(shift, c));
  }
}
