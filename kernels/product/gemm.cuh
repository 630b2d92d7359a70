// A matrix product by tiles, of operands that need not lie in memory as matrices.
//
// A block of threads makes a tile of the result: it takes strips of both operands through shared
// memory, the next strip on its way in registers while the last one is multiplied, and every thread
// keeps a small block of sums in registers. What the operands are is said by loaders, so that
// products of matrices, convolutions and their transposes are one algorithm:
//
//   Place place(int outer)       what is known of a row of the left (a column of the right) operand
//   Step step(int inner)         and of a position along the sum
//   ACC at(Place, Step)          the entry, 0 where the operand has none
//   ALONG_INNER                  whether neighbours in memory are neighbours along the sum
//
// Rows, columns and positions along the sum are ints, which spares registers; offsets are i64.

// Strip, what a strip is in shared memory, and Sums, the sums of a thread and how strips are added
// to them, are those of tensor.cuh where it defines TENSOR, else the ones below.

#ifndef TENSOR
#define PER_WORD 1  // entries along the sum that lie in one word of a strip
#endif

// ROWS x COLUMNS of a tile, HIGH x WIDE sums of a thread, multiples of 4; STRIP positions along the
// sum are in shared memory at a time.
template <int ROWS_, int COLUMNS_, int HIGH_, int WIDE_, int STRIP_>
struct Shape {
  static const int ROWS = ROWS_, COLUMNS = COLUMNS_, HIGH = HIGH_, WIDE = WIDE_, STRIP = STRIP_;
  static const int ACROSS = COLUMNS / WIDE, THREADS = ROWS / HIGH * ACROSS;
};

// All have 256 threads. In double a large tile is a tall one: its sums take twice the registers.
typedef Shape<128, sizeof(ACC) == 4 ? 128 : 64, 8, sizeof(ACC) == 4 ? 8 : 4, 8 * PER_WORD> Large;
typedef Shape<128, 64, 8, 4, 8 * PER_WORD> Tall;
typedef Shape<64, 64, 4, 4, 16> Small;

#ifndef TENSOR

template <int SIZE, int STRIP>
struct Strip {
  ACC lines[STRIP][SIZE + 4];  // 4: against bank conflicts

  __device__ void put(int line, int outer, const ACC* values) { lines[line][outer] = *values; }
};

// HIGH x WIDE sums in groups of 4 x 4, which are spread over the tile.
template <class T>
struct Sums {
  static const int NEXT_ROW = T::ROWS / (T::HIGH / 4), NEXT_COLUMN = T::COLUMNS / (T::WIDE / 4);
  ACC sums[T::HIGH][T::WIDE] = {};

  __device__ int row(int i) const {
    return i / 4 * NEXT_ROW + threadIdx.x / T::ACROSS * 4 + i % 4;
  }
  __device__ int column(int j) const {
    return j / 4 * NEXT_COLUMN + threadIdx.x % T::ACROSS * 4 + j % 4;
  }
  __device__ void add(const Strip<T::ROWS, T::STRIP>& a, const Strip<T::COLUMNS, T::STRIP>& b) {
#pragma unroll
    for (int s = 0; s < T::STRIP; ++s) {
      ACC x[T::HIGH], y[T::WIDE];
#pragma unroll
      for (int i = 0; i < T::HIGH; ++i) x[i] = a.lines[s][row(i)];
#pragma unroll
      for (int j = 0; j < T::WIDE; ++j) y[j] = b.lines[s][column(j)];
#pragma unroll
      for (int i = 0; i < T::HIGH; ++i)
#pragma unroll
        for (int j = 0; j < T::WIDE; ++j) sums[i][j] += x[i] * y[j];
    }
  }
  template <class Result>
  __device__ void give(const Result& result, int row_, int column_, int rows, int columns) const {
#pragma unroll
    for (int i = 0; i < T::HIGH; ++i) {
      int r = row_ + row(i);
#pragma unroll
      for (int j = 0; j < T::WIDE; ++j) {
        int c = column_ + column(j);
        if (r < rows && c < columns) result(r, c, sums[i][j]);
      }
    }
  }
};

#endif

// The part of a loader's strip that one thread carries from memory to shared memory.
template <class Loader, int SIZE, int THREADS, int STRIP>
struct Carrier {
  static const int LINES = STRIP / PER_WORD, COUNT = SIZE * LINES / THREADS;
  static const bool INNER = Loader::ALONG_INNER;
  static const int PLACES = INNER ? COUNT : 1;
  typename Loader::Place places[PLACES];
  ACC values[COUNT][PER_WORD];

  // Word i of a thread is at outer(i), line(i) of the strip.
  __device__ int outer(int i) const {
    return INNER ? threadIdx.x / LINES + i * (THREADS / LINES) : threadIdx.x % SIZE;
  }
  __device__ int line(int i) const {
    return INNER ? threadIdx.x % LINES : threadIdx.x / SIZE + i * (THREADS / SIZE);
  }
  __device__ void begin(const Loader& loader, int first) {
#pragma unroll
    for (int i = 0; i < PLACES; ++i) places[i] = loader.place(first + outer(i));
  }
  __device__ void fetch(const Loader& loader, int first) {
#pragma unroll
    for (int e = 0; e < PER_WORD; ++e) {
      if (INNER) {
        typename Loader::Step step = loader.step(first + line(0) * PER_WORD + e);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) values[i][e] = loader.at(places[i % PLACES], step);
      } else {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
          values[i][e] = loader.at(places[0], loader.step(first + line(i) * PER_WORD + e));
      }
    }
  }
  __device__ void put(Strip<SIZE, STRIP>& strip) const {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) strip.put(line(i), outer(i), values[i]);
  }
};

// Hand result(row, column, sum) every entry of the tile at `row`, `column` of the product, whose
// sums go from `begin` to `end`. All threads of the block call this; `rows` and `columns` are the
// product's.
template <class T, class Left, class Right, class Result>
__device__ inline void multiply(const Left& left, const Right& right, const Result& result, int row,
                                int column, int rows, int columns, int begin, int end) {
  alignas(16) __shared__ Strip<T::ROWS, T::STRIP> a[2];
  alignas(16) __shared__ Strip<T::COLUMNS, T::STRIP> b[2];
  Sums<T> sums;
  Carrier<Left, T::ROWS, T::THREADS, T::STRIP> from_left;
  Carrier<Right, T::COLUMNS, T::THREADS, T::STRIP> from_right;
  from_left.begin(left, row);
  from_right.begin(right, column);
  from_left.fetch(left, begin);
  from_right.fetch(right, begin);
  int turn = 0;
  for (int inner = begin; inner < end; inner += T::STRIP) {
    from_left.put(a[turn]);
    from_right.put(b[turn]);
    __syncthreads();  // one is enough: the other buffer is written only after the next of them
    if (inner + T::STRIP < end) {
      from_left.fetch(left, inner + T::STRIP);
      from_right.fetch(right, inner + T::STRIP);
    }
    sums.add(a[turn], b[turn]);
    turn ^= 1;
  }
  sums.give(result, row, column, rows, columns);
}

// An operand that is a matrix with one row of memory for each row (column) of the product, `INNER`
// entries along the sum, or the other way round.
template <bool INNER>
struct MatrixOperand {
  static const bool ALONG_INNER = INNER;
  typedef int Place;
  typedef int Step;
  const REAL* entries;
  int outers, inners, pitch;  // pitch: entries from one row of memory to the next

  // -1 is past the end.
  __device__ int place(int outer) const { return outer < outers ? outer : -1; }
  __device__ int step(int inner) const { return inner < inners ? inner : -1; }
  __device__ ACC at(int place, int step) const {
    if (place < 0 || step < 0) return 0;
    return load(entries, INNER ? (i64)place * pitch + step : (i64)step * pitch + place);
  }
};
