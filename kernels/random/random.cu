// Signs and normals of matrices and vectors, written where they are wanted; no words in memory.
//
// A block of threads owns a tile of entries: it puts the Philox words of the tile in shared memory
// and then writes the entries in the order of memory.

#define THREADS 128
#define SIGN_BLOCKS 32  // Philox blocks of a tile of signs: 4096 entries
#define NORMAL_BLOCKS 128  // and of normals: 512 entries

// Which tile of which direction this block of threads has. Tiles are `high` by `wide` Philox
// blocks; all numbers but the direction count Philox blocks.
struct Tile {
  i64 direction, top, left;
};

__device__ inline Tile tile_of(i64 tiles_down, i64 tiles_across, i64 high, i64 wide) {
  i64 tile = blockIdx.x;
  return {tile / tiles_across / tiles_down, tile / tiles_across % tiles_down * high,
          tile % tiles_across * wide};
}

// y: (k, rows, columns), a panel that begins at row `row0`, column `column0` of the matrices.
// A tile is SIGN_BLOCKS / wide by wide Philox blocks; wide is a power of two.
extern "C" __global__ void __launch_bounds__(THREADS)
    draw_signs(const u32* __restrict__ keys, i64 key0, i64 key1, REAL* __restrict__ y, i64 rows,
               i64 columns, i64 row0, i64 column0, i64 start, i64 step, i64 role, i64 wide,
               i64 tiles_down, i64 tiles_across) {
  __shared__ u32 words[4][SIGN_BLOCKS];
  Tile tile = tile_of(tiles_down, tiles_across, SIGN_BLOCKS / wide, wide);
  int across = (int)wide * SIGN_COLUMNS, i = threadIdx.x;
  if (i < SIGN_BLOCKS) {
    i64 c0 = row0 / SIGN_ROWS + tile.top + i / wide;
    i64 c1 = column0 / SIGN_COLUMNS + tile.left + i % wide;
    Words block = philox(c0, c1, start + tile.direction * step, role, key_of(keys, key0, key1));
    words[0][i] = block.x;
    words[1][i] = block.y;
    words[2][i] = block.z;
    words[3][i] = block.w;
  }
  __syncthreads();
  i64 top = tile.top * SIGN_ROWS, left = tile.left * SIGN_COLUMNS;
  for (int e = i; e < SIGN_BLOCKS * SIGN_ROWS * SIGN_COLUMNS; e += THREADS) {
    int row = e / across, column = e % across;
    if (top + row >= rows || left + column >= columns) continue;
    u32 word = words[sign_word(row)][row / SIGN_ROWS * (int)wide + column / SIGN_COLUMNS];
    ACC sign = word >> sign_bit(row, column) & 1 ? -1 : 1;
    store(y, (tile.direction * rows + top + row) * columns + left + column, sign);
  }
}

__device__ inline ACC normal_of(u32 word) {
  double u = ((double)word + 0.5) * 0x1p-32;
  return (ACC)ndtri_of(u);
}

// As draw_signs. With `vector` the matrices are vectors, of one row, whose blocks go by c0.
extern "C" __global__ void __launch_bounds__(THREADS)
    draw_normals(const u32* __restrict__ keys, i64 key0, i64 key1, REAL* __restrict__ y, i64 rows,
                 i64 columns, i64 row0, i64 column0, i64 start, i64 step, i64 role, i64 wide,
                 i64 tiles_down, i64 tiles_across, i64 vector) {
  __shared__ u32 words[NORMAL_BLOCKS * NORMAL_COLUMNS];
  Tile tile = tile_of(tiles_down, tiles_across, NORMAL_BLOCKS / wide, wide);
  int across = (int)wide * NORMAL_COLUMNS, i = threadIdx.x;
  i64 row = row0 + tile.top + i / wide, column = column0 / NORMAL_COLUMNS + tile.left + i % wide;
  Words block = philox(vector ? column : row, vector ? 0 : column, start + tile.direction * step,
                       role + NORMAL, key_of(keys, key0, key1));
  words[4 * i] = block.x;
  words[4 * i + 1] = block.y;
  words[4 * i + 2] = block.z;
  words[4 * i + 3] = block.w;
  __syncthreads();
  i64 left = tile.left * NORMAL_COLUMNS;
  for (int e = i; e < NORMAL_BLOCKS * NORMAL_COLUMNS; e += THREADS) {
    i64 r = tile.top + e / across, c = left + e % across;
    if (r < rows && c < columns)
      store(y, (tile.direction * rows + r) * columns + c, normal_of(words[e]));
  }
}

// y: (k, size).
extern "C" __global__ void draw_vector_signs(const u32* __restrict__ keys, i64 key0, i64 key1,
                                             REAL* __restrict__ y, i64 k, i64 size, i64 start,
                                             i64 step, i64 role) {
  Key key = key_of(keys, key0, key1);
  for (i64 i = thread_index(); i < k * size; i += thread_count()) {
    i64 direction = i / size;
    store(y, i, vector_sign(i % size, start + direction * step, role, key) ? -1 : 1);
  }
}
