// Max pooling of NHWC images. A block of threads owns one row of the result at a time, all columns
// and channels of it, so that little has to be divided.

struct Pooled {
  i64 images, height, width, channels;  // of x
  i64 h, w;                             // of a window, and its stride
  i64 rows, columns;                    // of the result

  // Entries of x before the window of column `column` in row `row`, counted over all images.
  __device__ i64 corner(i64 row, i64 column) const {
    return ((row / rows * height + row % rows * h) * width + column * w) * channels;
  }
};

#define POOLED                                                                                    \
  i64 images, i64 height, i64 width, i64 channels, i64 h, i64 w
#define POOLED_GIVEN                                                                              \
  {images, height, width, channels, h, w, height / h, width / w}

// An index of `bytes` bytes, a signed integer.
__device__ inline void write_index(void* index, i64 bytes, i64 i, i64 value) {
  if (bytes == 1) ((signed char*)index)[i] = (signed char)value;
  if (bytes == 2) ((short*)index)[i] = (short)value;
  if (bytes == 4) ((int*)index)[i] = (int)value;
  if (bytes == 8) ((i64*)index)[i] = value;
}

__device__ inline i64 read_index(const void* index, i64 bytes, i64 i) {
  if (bytes == 1) return ((const signed char*)index)[i];
  if (bytes == 2) return ((const short*)index)[i];
  return bytes == 4 ? ((const int*)index)[i] : ((const i64*)index)[i];
}

struct Found {
  ACC value;
  i64 position, place;  // in the window, row-major, and in x
};

// The first maximum of a window; a NaN that comes first is one.
__device__ inline Found first_maximum(const REAL* x, const Pooled& shape, i64 corner) {
  Found best = {load(x, corner), 0, corner};
  i64 position = 0;
  for (i64 i = 0; i < shape.h; ++i)
    for (i64 j = 0; j < shape.w; ++j, ++position) {
      i64 place = corner + (i * shape.width + j) * shape.channels;
      ACC value = load(x, place);
      // !(value <= best) is true for a NaN too
      if (!(value <= best.value) && best.value == best.value) best = {value, position, place};
    }
  return best;
}

// x: images; y, index: (images, rows, columns, channels).
extern "C" __global__ void max_pool(const REAL* __restrict__ x, REAL* __restrict__ y,
                                    void* __restrict__ index, i64 bytes, POOLED) {
  Pooled shape = POOLED_GIVEN;
  int across = (int)(shape.columns * channels);
  for (i64 row = blockIdx.x; row < images * shape.rows; row += gridDim.x)
    for (int e = threadIdx.x; e < across; e += blockDim.x) {
      i64 corner = shape.corner(row, e / (int)channels) + e % (int)channels;
      Found best = first_maximum(x, shape, corner);
      store(y, row * across + e, best.value);
      write_index(index, bytes, row * across + e, best.position);
    }
}

// t: (k, images ..); y: (k, images, rows, columns, channels).
extern "C" __global__ void max_pool_gather(const REAL* __restrict__ t,
                                           const void* __restrict__ index, REAL* __restrict__ y,
                                           i64 k, i64 bytes, POOLED) {
  Pooled shape = POOLED_GIVEN;
  int across = (int)(shape.columns * channels);
  i64 size = images * height * width * channels, result = images * shape.rows * across;
  for (i64 row = blockIdx.x; row < images * shape.rows; row += gridDim.x)
    for (int e = threadIdx.x; e < across; e += blockDim.x) {
      int position = (int)read_index(index, bytes, row * across + e);
      i64 place = shape.corner(row, e / (int)channels) + e % (int)channels +
                  (position / (int)w * width + position % (int)w) * channels;
      for (i64 i = 0; i < k; ++i)
        store(y, i * result + row * across + e, load(t, i * size + place));
    }
}

// ct: (k, images, rows, columns, channels); t: (k, images ..), all of it is written.
extern "C" __global__ void max_pool_scatter(const REAL* __restrict__ ct,
                                            const void* __restrict__ index, REAL* __restrict__ t,
                                            i64 k, i64 bytes, POOLED) {
  Pooled shape = POOLED_GIVEN;
  int across = (int)(width * channels);
  i64 size = images * height * across, result = images * shape.rows * shape.columns * channels;
  for (i64 line = blockIdx.x; line < images * height; line += gridDim.x) {
    int image_row = (int)(line % height);
    for (int e = threadIdx.x; e < across; e += blockDim.x) {
      int column = e / (int)channels, channel = e % (int)channels;
      int row = image_row / (int)h, position = image_row % (int)h * (int)w + column % (int)w;
      bool inside = row < shape.rows && column / (int)w < shape.columns;
      i64 place = (line / height * shape.rows + row) * shape.columns + column / (int)w;
      place = place * channels + channel;
      bool here = inside && read_index(index, bytes, place) == position;
      for (i64 i = 0; i < k; ++i)
        store(t, i * size + line * across + e, here ? load(ct, i * result + place) : 0);
    }
  }
}
