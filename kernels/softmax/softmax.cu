// Softmax and its relatives over rows, shifted by the maximum so that exp cannot overflow. -inf has
// probability 0; a row that is all -inf, or holds +inf or NaN, gives NaN, but for its logsumexp.

#define TOGETHER 4  // directions whose sums a thread keeps at once

// The maximum of a row, and the sum of exp(x - maximum).
template <int WIDTH>
__device__ inline void shifted_sum(const REAL* x, i64 columns, ACC& top, ACC& total) {
  top = -infinity();
  for (i64 i = threadIdx.x; i < columns; i += WIDTH) top = larger(top, load(x, i));
  top = row_max<WIDTH>(top);
  total = 0;
  for (i64 i = threadIdx.x; i < columns; i += WIDTH) total += exp(load(x, i) - top);
  total = row_sum<WIDTH>(total);
}

template <int WIDTH>
__device__ inline void softmax(const REAL* x, REAL* y, i64 rows, i64 columns) {
  for (i64 row = first_row(); row < rows; row += row_step()) {
    const REAL* from = x + row * columns;
    ACC top, total;
    shifted_sum<WIDTH>(from, columns, top, total);
    for (i64 i = threadIdx.x; i < columns; i += WIDTH)
      store(y, row * columns + i, exp(load(from, i) - top) / total);
  }
}

template <int WIDTH>
__device__ inline void log_softmax(const REAL* x, REAL* y, i64 rows, i64 columns) {
  for (i64 row = first_row(); row < rows; row += row_step()) {
    const REAL* from = x + row * columns;
    ACC top, total;
    shifted_sum<WIDTH>(from, columns, top, total);
    total = log(total);
    for (i64 i = threadIdx.x; i < columns; i += WIDTH)
      store(y, row * columns + i, load(from, i) - top - total);
  }
}

template <int WIDTH>
__device__ inline void logsumexp(const REAL* x, REAL* y, i64 rows, i64 columns) {
  for (i64 row = first_row(); row < rows; row += row_step()) {
    ACC top, total;
    shifted_sum<WIDTH>(x + row * columns, columns, top, total);
    if (threadIdx.x == 0) store(y, row, fabs(top) < infinity() ? log(total) + top : top);
  }
}

// y * (t - sum(y * t)) of each tangent t, for rows y of softmax; where `log` is set t - sum(y * t).
template <int WIDTH>
__device__ inline void turn(const REAL* y, const REAL* t, REAL* turned, i64 rows, i64 columns,
                            i64 directions, bool log) {
  for (i64 row = first_row(); row < rows; row += row_step()) {
    const REAL* at = y + row * columns;
    for (i64 k = blockIdx.y; k < directions; k += gridDim.y) {
      const i64 start = (k * rows + row) * columns;
      ACC along = 0;
      for (i64 i = threadIdx.x; i < columns; i += WIDTH) along += load(at, i) * load(t, start + i);
      along = row_sum<WIDTH>(along);
      for (i64 i = threadIdx.x; i < columns; i += WIDTH) {
        ACC p = load(at, i), moved = load(t, start + i);
        store(turned, start + i, log ? moved - along : p * moved - p * along);
      }
    }
  }
}

// The label's logit; NaN, and so is the loss, for a label that is no class.
__device__ inline ACC logit_of(const REAL* logits, i64 label, i64 columns) {
  return label >= 0 && label < columns ? load(logits, label) : not_a_number();
}

template <int WIDTH>
__device__ inline void cross_entropy(const REAL* logits, const i64* labels, REAL* losses,
                                     REAL* probabilities, i64 rows, i64 columns) {
  for (i64 row = first_row(); row < rows; row += row_step()) {
    const REAL* from = logits + row * columns;
    ACC top, total;
    shifted_sum<WIDTH>(from, columns, top, total);
    for (i64 i = threadIdx.x; i < columns; i += WIDTH)
      store(probabilities, row * columns + i, exp(load(from, i) - top) / total);
    if (threadIdx.x == 0)
      store(losses, row, log(total) - (logit_of(from, labels[row], columns) - top));
  }
}

// d loss = sum((softmax - one-hot label) * t), the softmax by way of the loss itself.
template <int WIDTH>
__device__ inline void cross_entropy_tangents(const REAL* logits, const i64* labels, const REAL* t,
                                              REAL* losses, REAL* tangents, i64 rows, i64 columns,
                                              i64 directions) {
  for (i64 row = first_row(); row < rows; row += row_step()) {
    const REAL* from = logits + row * columns;
    ACC top, total;
    shifted_sum<WIDTH>(from, columns, top, total);
    const ACC chosen = logit_of(from, labels[row], columns);
    const ACC loss = log(total) - (chosen - top);
    if (threadIdx.x == 0 && blockIdx.y == 0) store(losses, row, loss);
    for (i64 k = blockIdx.y * TOGETHER; k < directions; k += gridDim.y * TOGETHER) {
      ACC sums[TOGETHER] = {};
      for (i64 i = threadIdx.x; i < columns; i += WIDTH) {
        ACC weight = exp(load(from, i) - (loss + chosen)) - (i == labels[row]);
#pragma unroll
        for (int j = 0; j < TOGETHER; ++j)
          if (k + j < directions) sums[j] += weight * load(t, ((k + j) * rows + row) * columns + i);
      }
#pragma unroll
      for (int j = 0; j < TOGETHER; ++j) {
        ACC sum = row_sum<WIDTH>(sums[j]);
        if (threadIdx.x == 0 && k + j < directions) store(tangents, (k + j) * rows + row, sum);
      }
    }
  }
}

#define MAPS(width, WIDTH)                                                                       \
  extern "C" __global__ void softmax_##width(const REAL* x, REAL* y, i64 rows, i64 columns) {    \
    softmax<WIDTH>(x, y, rows, columns);                                                         \
  }                                                                                              \
  extern "C" __global__ void log_softmax_##width(const REAL* x, REAL* y, i64 rows, i64 columns) { \
    log_softmax<WIDTH>(x, y, rows, columns);                                                     \
  }                                                                                              \
  extern "C" __global__ void logsumexp_##width(const REAL* x, REAL* y, i64 rows, i64 columns) {  \
    logsumexp<WIDTH>(x, y, rows, columns);                                                       \
  }                                                                                              \
  extern "C" __global__ void cross_entropy_##width(const REAL* logits, const i64* labels,        \
                                                   REAL* losses, REAL* probabilities, i64 rows,  \
                                                   i64 columns) {                                \
    cross_entropy<WIDTH>(logits, labels, losses, probabilities, rows, columns);                  \
  }                                                                                              \
  extern "C" __global__ void cross_entropy_tangents_##width(                                     \
      const REAL* logits, const i64* labels, const REAL* t, REAL* losses, REAL* tangents,        \
      i64 rows, i64 columns, i64 directions) {                                                   \
    cross_entropy_tangents<WIDTH>(logits, labels, t, losses, tangents, rows, columns,            \
                                  directions);                                                   \
  }                                                                                              \
  extern "C" __global__ void softmax_turn_##width(const REAL* y, const REAL* t, REAL* turned,    \
                                                  i64 rows, i64 columns, i64 directions) {       \
    turn<WIDTH>(y, t, turned, rows, columns, directions, false);                                 \
  }                                                                                              \
  extern "C" __global__ void log_softmax_turn_##width(const REAL* y, const REAL* t, REAL* turned, \
                                                      i64 rows, i64 columns, i64 directions) {   \
    turn<WIDTH>(y, t, turned, rows, columns, directions, true);                                  \
  }

MAPS(warp, WARP)
MAPS(block, BLOCK)
