// Philox4x32-10 and the map from entries of directions to bits of its words, docs/directions.md.
//
// Source: J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.

#define NORMAL 16  // added to the role of what is drawn as normals
#define SIGN_ROWS 8  // of a matrix of signs whose entries are the bits of one Philox block
#define SIGN_COLUMNS 16
#define SIGN_LINE 128  // entries of a vector of signs in one block
#define NORMAL_COLUMNS 4  // normals in one block, of a matrix's row or of a vector

struct Key {
  u32 first, second;
};

struct Words {
  u32 x, y, z, w;
};

// The key in device memory, or where there is none the two numbers.
__device__ inline Key key_of(const u32* words, i64 first, i64 second) {
  Key key;
  key.first = words ? words[0] : (u32)first;
  key.second = words ? words[1] : (u32)second;
  return key;
}

__device__ inline Words philox(i64 c0, i64 c1, i64 c2, i64 c3, Key key) {
  u32 x = (u32)c0, y = (u32)c1, z = (u32)c2, w = (u32)c3;
  u32 first = key.first, second = key.second;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    u32 high_x = __umulhi(x, 0xD2511F53u), high_z = __umulhi(z, 0xCD9E8D57u);
    u32 low_x = x * 0xD2511F53u, low_z = z * 0xCD9E8D57u;
    x = high_z ^ y ^ first;
    z = high_x ^ w ^ second;
    y = low_z;
    w = low_x;
    first += 0x9E3779B9u;
    second += 0xBB67AE85u;
  }
  return {x, y, z, w};
}

// Word i of a block, 0 <= i < 4, without an array that would lie in memory.
__device__ inline u32 word_of(Words block, int i) {
  u32 low = i & 1 ? block.y : block.x, high = i & 1 ? block.w : block.z;
  return i & 2 ? high : low;
}

// The word and the bit of sign (row, column) of a matrix within its block.
__device__ inline int sign_word(int row) { return row % SIGN_ROWS / 2; }
__device__ inline int sign_bit(int row, int column) { return row % 2 * 16 + column % SIGN_COLUMNS; }

// Sign i of a vector.
__device__ inline bool vector_sign(i64 i, i64 direction, i64 role, Key key) {
  Words block = philox(i / SIGN_LINE, 0, direction, role, key);
  return word_of(block, (int)(i / 32 % 4)) >> (i % 32) & 1;
}
