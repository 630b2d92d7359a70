// Words of Philox4x32-10, for counters that are given and for vectors.

extern "C" __global__ void philox_words(const u32* __restrict__ counters,
                                        const u32* __restrict__ keys, i64 key0, i64 key1,
                                        u32* __restrict__ words, i64 blocks) {
  Key key = key_of(keys, key0, key1);
  for (i64 i = thread_index(); i < blocks; i += thread_count()) {
    const u32* counter = counters + 4 * i;
    Words block = philox(counter[0], counter[1], counter[2], counter[3], key);
    words[4 * i] = block.x;
    words[4 * i + 1] = block.y;
    words[4 * i + 2] = block.z;
    words[4 * i + 3] = block.w;
  }
}

// words: (k, size). Direction i is start + i * step.
extern "C" __global__ void vector_words(const u32* __restrict__ keys, i64 key0, i64 key1,
                                        u32* __restrict__ words, i64 k, i64 size, i64 start,
                                        i64 step, i64 role) {
  Key key = key_of(keys, key0, key1);
  i64 blocks = (size + 3) / 4;
  for (i64 i = thread_index(); i < k * blocks; i += thread_count()) {
    i64 direction = i / blocks, first = i % blocks * 4;
    Words block = philox(i % blocks, 0, start + direction * step, role, key);
    for (int j = 0; j < 4 && first + j < size; ++j)
      words[direction * size + first + j] = word_of(block, j);
  }
}
