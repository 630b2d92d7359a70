// A forward-gradient step on a device: short vectors drawn, layers ended, the losses averaged, the
// parameters updated. An activation is stacked: the primal, then k tangents, each
// (rows, columns); the rows of images are their pixels.

#define THREADS 256
#define ROW_THREADS 128  // of a row's products
#define MATRIX 0  // roles of a direction's counters
#define DIRECTIONS 4  // at a time, where each needs a sum
#define FOLD_INTEGER 64  // the roles of keys made of keys
#define FOLD_STRING 65

// A piece of the table of draw_vectors; strides and the offset count entries of `vectors`.
enum { DIGEST, LEAF, ROLE, SIZE, OFFSET, DIRECTION_STRIDE, ENTRY_STRIDE, PIECE_FIELDS };

// A leaf of the table of `update`.
enum { ADDRESS, ROWS, COLUMNS, KIND, LEFT, LEFT_DIRECTION, LEFT_ENTRY, RIGHT, FIRST_BLOCK,
       LEAF_FIELDS };
enum { VECTOR, RANK1, DENSE };  // kinds

__device__ inline Key folded(Key key, i64 number, i64 role) {
  Words block = philox(number, number >> 32, 0, role, key);
  return {block.x, block.y};
}

// Draw every vector of the table, and leave the keys of all leaves and the rate for the kernels
// that follow. Blocks along y: a piece each. All that changes from step to step is in the
// arguments of this kernel alone, so that those after it can be one captured graph.
extern "C" __global__ void draw_vectors(i64 key0, i64 key1, i64 step, double rate,
                                        const i64* __restrict__ table, i64 directions_digest,
                                        i64 normals, i64 k, u32* __restrict__ keys,
                                        double* __restrict__ numbers, REAL* __restrict__ vectors) {
  __shared__ Key leaf;
  const i64* piece = table + (i64)blockIdx.y * PIECE_FIELDS;
  if (threadIdx.x == 0) {
    Key key = {(u32)key0, (u32)key1};
    key = folded(folded(key, step, FOLD_INTEGER), directions_digest, FOLD_STRING);
    leaf = folded(key, piece[DIGEST], FOLD_STRING);
    if (blockIdx.x == 0) {
      keys[2 * piece[LEAF]] = leaf.first;
      keys[2 * piece[LEAF] + 1] = leaf.second;
      if (blockIdx.y == 0) numbers[0] = rate;
    }
  }
  __syncthreads();
  Key key = leaf;
  i64 size = piece[SIZE], role = piece[ROLE];
  for (i64 e = thread_index(); e < k * size; e += thread_count()) {
    i64 direction = e / size, i = e % size;
    ACC entry;
    if (normals) {
      Words block = philox(i / NORMAL_COLUMNS, 0, direction, role + NORMAL, key);
      u32 word = word_of(block, (int)(i % NORMAL_COLUMNS));
      entry = (ACC)ndtri_of(((double)word + 0.5) * 0x1p-32);
    } else {
      entry = vector_sign(i, direction, role, key) ? -1 : 1;
    }
    store(vectors, piece[OFFSET] + direction * piece[DIRECTION_STRIDE] + i * piece[ENTRY_STRIDE],
          entry);
  }
}

// The signs of eight rows of a column, row r in bit r.
__device__ inline u32 signs_of(i64 octet, i64 column, i64 direction, Key key) {
  Words block = philox(octet, column / SIGN_COLUMNS, direction, MATRIX, key);
  u32 signs = 0;
#pragma unroll
  for (int r = 0; r < SIGN_ROWS; ++r)
    signs |= (word_of(block, sign_word(r)) >> sign_bit(r, (int)(column % SIGN_COLUMNS)) & 1) << r;
  return signs;
}

// d: (rows, k, columns), the k dense directions of a leaf side by side, for one product with all.
// A thread takes eight rows of a column.
extern "C" __global__ void __launch_bounds__(THREADS)
    draw_matrix(const u32* __restrict__ keys, i64 leaf, REAL* __restrict__ d, i64 rows, i64 columns,
                i64 k) {
  Key key = key_of(keys + 2 * leaf, 0, 0);
  i64 octets = (rows + SIGN_ROWS - 1) / SIGN_ROWS;
  for (i64 t = thread_index(); t < octets * columns; t += thread_count()) {
    i64 octet = t / columns, column = t % columns, first = octet * SIGN_ROWS;
    for (i64 i = 0; i < k; ++i) {
      u32 signs = signs_of(octet, column, i, key);
      for (int r = 0; r < SIGN_ROWS && first + r < rows; ++r)
        store(d, ((first + r) * k + i) * columns + column, signs >> r & 1 ? -1 : 1);
    }
  }
}

// s: (rows, k), the products of the rows of x (rows, inner) with k vectors (k, inner): what the
// left factors of rank-1 directions make of a layer's input. A block takes a row, so that even a
// small batch has many blocks.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    row_dots(const REAL* __restrict__ x, const REAL* __restrict__ vectors, i64 offset,
             REAL* __restrict__ s, i64 rows, i64 inner, i64 k) {
  __shared__ ACC parts[ROW_THREADS / WARP][DIRECTIONS];
  const REAL* u = vectors + offset;
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
    for (i64 first = 0; first < k; first += DIRECTIONS) {
      ACC sums[DIRECTIONS] = {};
      for (i64 j = threadIdx.x; j < inner; j += ROW_THREADS) {
        ACC entry = load(x, row * inner + j);
#pragma unroll
        for (int i = 0; i < DIRECTIONS; ++i)
          if (first + i < k) sums[i] += entry * load(u, (first + i) * inner + j);
      }
#pragma unroll
      for (int i = 0; i < DIRECTIONS; ++i) {
        ACC part = warp_sum(sums[i]);
        if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP][i] = part;
      }
      __syncthreads();
      if (threadIdx.x < DIRECTIONS && first + threadIdx.x < k) {
        ACC total = 0;
        for (int part = 0; part < ROW_THREADS / WARP; ++part) total += parts[part][threadIdx.x];
        store(s, row * k + first + threadIdx.x, total);
      }
      __syncthreads();
    }
  }
}

// What a layer's result lacks when its products are done, for entry (row, column) of n.
struct Layer {
  const REAL *y, *s, *e, *vectors, *bias;
  i64 right, vector;  // where the right factors, and the directions of the bias, begin
  i64 size, columns, k;
  bool moving, rectified;

  __device__ ACC primal(i64 row, i64 column) const {
    ACC z = load(y, row * columns + column);
    return bias ? z + load(bias, column) : z;
  }
  // The slope of the activation is 1 also at NaN, as elsewhere.
  __device__ bool passes(ACC z) const { return !(rectified && z <= 0); }

  // Tangent i before the activation: of the input, of the weight, of the bias.
  __device__ ACC tangent(i64 row, i64 column, i64 i) const {
    ACC t = moving ? load(y, (1 + i) * size + row * columns + column) : 0;
    if (s) t += load(s, row * k + i) * load(vectors, right + i * columns + column);
    if (e) t += load(e, (row * k + i) * columns + column);
    return bias ? t + load(vectors, vector + i * columns + column) : t;
  }
};

// Finish a layer in place. y: (1 + k, rows, columns), whose tangents are read where `moving`, as
// the input had some; s: (rows, k) of a rank-1 direction, e: (rows, k, columns) of a dense one, or
// null.
extern "C" __global__ void __launch_bounds__(THREADS)
    end_layer(REAL* y, const REAL* __restrict__ s, const REAL* __restrict__ e,
              const REAL* __restrict__ vectors, i64 right, const REAL* __restrict__ bias, i64 vector,
              i64 rows, i64 columns, i64 k, i64 moving, i64 rectified) {
  i64 size = rows * columns;
  Layer layer = {y, s, e, vectors, bias, right, vector, size, columns, k, moving != 0,
                 rectified != 0};
  for (i64 place = thread_index(); place < size; place += thread_count()) {
    i64 row = place / columns, column = place % columns;
    ACC z = layer.primal(row, column);
    bool passes = layer.passes(z);
    for (i64 i = 0; i < k; ++i)
      store(y, (1 + i) * size + place, passes ? layer.tangent(row, column, i) : 0);
    store(y, place, passes ? z : 0);
  }
}

// As end_layer, for images, and then the maxima of windows of 2 x 2: pooled, (1 + k, images,
// height / 2, width / 2, columns). Tangents are those of the first maximum; a NaN is one.
extern "C" __global__ void __launch_bounds__(THREADS)
    end_pooled_layer(const REAL* __restrict__ y, REAL* __restrict__ pooled,
                     const REAL* __restrict__ s, const REAL* __restrict__ e,
                     const REAL* __restrict__ vectors, i64 right, const REAL* __restrict__ bias,
                     i64 vector, i64 images, i64 height, i64 width, i64 columns, i64 k, i64 moving,
                     i64 rectified) {
  i64 high = height / 2, wide = width / 2, size = images * high * wide * columns;
  Layer layer = {y, s, e, vectors, bias, right, vector, images * height * width * columns, columns,
                 k, moving != 0, rectified != 0};
  for (i64 place = thread_index(); place < size; place += thread_count()) {
    i64 column = place % columns, pixel = place / columns;
    i64 across = pixel % wide, down = pixel / wide % high, image = pixel / wide / high;
    i64 corner = (image * height + 2 * down) * width + 2 * across, best = corner;
    ACC top = 0;
    bool passes = false;
    for (int q = 0; q < 4; ++q) {
      i64 row = corner + q / 2 * width + q % 2;
      ACC z = layer.primal(row, column);
      bool through = layer.passes(z);
      z = through ? z : 0;
      if (q == 0 || z > top || (z != z && top == top)) {
        best = row;
        top = z;
        passes = through;
      }
    }
    store(pooled, place, top);
    for (i64 i = 0; i < k; ++i)
      store(pooled, (1 + i) * size + place, passes ? layer.tangent(best, column, i) : 0);
  }
}

// The means of the losses and of their tangents, one a block: the loss, and what the parameters
// move by along each direction, rate * clip(d) / k in numbers[1 + i].
extern "C" __global__ void __launch_bounds__(THREADS)
    end_step(const REAL* __restrict__ losses, i64 examples, i64 k, double clip,
             REAL* __restrict__ loss, double* __restrict__ numbers) {
  __shared__ double parts[THREADS];
  double total = 0;
  for (i64 i = threadIdx.x; i < examples; i += THREADS)
    total += (double)load(losses, (i64)blockIdx.x * examples + i);
  parts[threadIdx.x] = total;
  for (int half = THREADS / 2; half; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
  }
  if (threadIdx.x) return;
  double mean = parts[0] / (double)examples;
  if (blockIdx.x == 0) {
    store(loss, 0, (ACC)mean);
  } else {
    double clipped = mean > clip ? clip : mean < -clip ? -clip : mean;  // a NaN stays
    numbers[blockIdx.x] = numbers[0] * clipped / (double)k;
  }
}

// Take sum_i c_i v_i from every leaf. The table has a row for each, whose blocks follow those of
// the leaf before; a thread takes eight rows of a column. Dense directions are drawn again.
extern "C" __global__ void __launch_bounds__(THREADS)
    update(const i64* __restrict__ table, i64 leaves, const u32* __restrict__ keys,
           const double* __restrict__ numbers, const REAL* __restrict__ vectors, i64 k) {
  i64 low = 0, high = leaves - 1;  // the last leaf that begins at this block or before
  while (low < high) {
    i64 middle = (low + high + 1) / 2;
    if (table[middle * LEAF_FIELDS + FIRST_BLOCK] <= blockIdx.x) low = middle;
    else high = middle - 1;
  }
  const i64* leaf = table + low * LEAF_FIELDS;
  i64 rows = leaf[ROWS], columns = leaf[COLUMNS], kind = leaf[KIND];
  i64 t = ((i64)blockIdx.x - leaf[FIRST_BLOCK]) * THREADS + threadIdx.x;
  i64 octet = t / columns, column = t % columns, first = octet * SIGN_ROWS;
  if (first >= rows) return;
  int here = rows - first < SIGN_ROWS ? (int)(rows - first) : SIGN_ROWS;
  Key key = key_of(keys + 2 * low, 0, 0);
  ACC sums[SIGN_ROWS] = {};
  for (i64 i = 0; i < k; ++i) {
    ACC c = (ACC)numbers[1 + i];
    if (kind == DENSE) {
      u32 signs = signs_of(octet, column, i, key);
#pragma unroll
      for (int r = 0; r < SIGN_ROWS; ++r) sums[r] += signs >> r & 1 ? -c : c;
    } else {
      ACC right = c * load(vectors, leaf[RIGHT] + i * columns + column);
      i64 left = leaf[LEFT] + i * leaf[LEFT_DIRECTION] + first * leaf[LEFT_ENTRY];
#pragma unroll
      for (int r = 0; r < SIGN_ROWS; ++r)
        if (r < here)
          sums[r] += kind == VECTOR ? right : right * load(vectors, left + r * leaf[LEFT_ENTRY]);
    }
  }
  REAL* w = (REAL*)leaf[ADDRESS] + first * columns + column;
#pragma unroll
  for (int r = 0; r < SIGN_ROWS; ++r)
    if (r < here) store(w, r * columns, load(w, r * columns) - sums[r]);
}
