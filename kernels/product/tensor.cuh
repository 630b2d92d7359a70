// Products of float32 on tensor cores, by the macro TENSOR_TF32 or TENSOR_BF16: entries are rounded
// to tf32 or bfloat16 once, as they are put in shared memory, and sums are float32.
//
// One instruction of a warp adds the product of 16 rows and 8 columns, eight words of 32 bits along
// the sum, where a word is one entry of tf32 or two of bfloat16 that follow one another. Of these,
// lane 4 g + t has (PTX ISA, matrix fragments of mma.m16n8k8 with tf32, mma.m16n8k16 with bf16)
//
//   left   [0] row g, word t      [1] row g + 8, word t      [2], [3] the same with word t + 4
//   right  [0] word t, column g   [1] word t + 4, column g
//   sums   [0], [1] row g, columns 2 t and 2 t + 1           [2], [3] the same of row g + 8

#if defined(TENSOR_TF32) || defined(TENSOR_BF16)
#define TENSOR

#ifdef TENSOR_TF32
#define PER_WORD 1
#else
#define PER_WORD 2
#endif

#ifdef __CUDA_ARCH__
#ifdef TENSOR_TF32
#define MMA "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#define ROUND(word, x) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x[0]))
#else
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#define ROUND(word, x) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(x[1]), "f"(x[0]))
#endif

__device__ inline u32 rounded(const float* x) {
  u32 word;
  ROUND(word, x);
  return word;
}
__device__ inline void add_product(float* sums, const u32* left, const u32* right) {
  asm volatile(MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]),
                 "r"(right[1]));
}
#else  // on a host: its header says what these instructions do
__device__ inline u32 rounded(const float* x) { return host::rounded<PER_WORD>(x); }
__device__ inline void add_product(float* sums, const u32* left, const u32* right) {
  host::add_product<PER_WORD>(sums, left, right);
}
#endif

template <int SIZE, int STRIP>
struct Strip {
  u32 lines[STRIP / PER_WORD][SIZE + 8];  // 8: the 4 x 8 words that a warp reads have own banks

  __device__ void put(int line, int outer, const float* values) {
    lines[line][outer] = rounded(values);
  }
};

// The eight warps have a part of the tile each, 4 x 2 of them, and make it of products of 16 x 8.
template <class T>
struct Sums {
  static const int HIGH = T::ROWS / 64, WIDE = T::COLUMNS / 16;
  float sums[HIGH][WIDE][4] = {};

  __device__ int row(int i) const {
    return threadIdx.x / WARP % 4 * (T::ROWS / 4) + 16 * i + threadIdx.x % WARP / 4;
  }
  __device__ int column(int j) const { return threadIdx.x / WARP / 4 * (T::COLUMNS / 2) + 8 * j; }
  __device__ void add(const Strip<T::ROWS, T::STRIP>& a, const Strip<T::COLUMNS, T::STRIP>& b) {
#pragma unroll
    for (int first = 0; first < T::STRIP / PER_WORD; first += 8) {
      int line = first + threadIdx.x % 4;
      u32 left[HIGH][4];
#pragma unroll
      for (int i = 0; i < HIGH; ++i)
#pragma unroll
        for (int w = 0; w < 4; ++w) left[i][w] = a.lines[line + w / 2 * 4][row(i) + w % 2 * 8];
#pragma unroll
      for (int j = 0; j < WIDE; ++j) {
        int outer = column(j) + threadIdx.x % WARP / 4;
        u32 right[2] = {b.lines[line][outer], b.lines[line + 4][outer]};
#pragma unroll
        for (int i = 0; i < HIGH; ++i) add_product(sums[i][j], left[i], right);
      }
    }
  }
  template <class Result>
  __device__ void give(const Result& result, int row_, int column_, int rows, int columns) const {
#pragma unroll
    for (int i = 0; i < HIGH; ++i)
#pragma unroll
      for (int j = 0; j < WIDE; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          int r = row_ + row(i) + e / 2 * 8;
          int c = column_ + column(j) + threadIdx.x % 4 * 2 + e % 2;
          if (r < rows && c < columns) result(r, c, sums[i][j][e]);
        }
  }
};

#endif
