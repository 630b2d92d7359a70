// Rows of a matrix, each for one warp (WIDTH is WARP, a block is WARP x 8) or for a block of BLOCK.

#define BLOCK 256

template <int WIDTH>
__device__ inline ACC row_sum(ACC v) {
  if constexpr (WIDTH == WARP) return warp_sum(v);
  else return block_sum<WIDTH>(v);
}

template <int WIDTH>
__device__ inline ACC row_max(ACC v) {
  if constexpr (WIDTH == WARP) return warp_max(v);
  else return block_max<WIDTH>(v);
}

// The rows of a warp or block are first_row, first_row + row_step, ...
__device__ inline i64 first_row() { return (i64)blockIdx.x * blockDim.y + threadIdx.y; }
__device__ inline i64 row_step() { return (i64)gridDim.x * blockDim.y; }
