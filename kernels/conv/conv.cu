// Convolution of NHWC images and its transposes: products by tiles whose operands are read where
// they lie, so that no patch matrix is made. Outputs, taps and inputs are numbered
//
//   pixel  (image, p, q) of the result      tap  (i, j, c), c a channel of one group
//
// and y[pixel, o] = sum_tap x[pixel at tap] w[tap, o], group by group (blockIdx.y).

#define THREADS 256
#define OUTSIDE (-(1 << 29))  // a row that stays outside of all images whatever is added

struct Window {
  i64 images;
  int height, width, channels;  // channels of all groups
  int kh, kw, outputs;          // outputs of all groups
  int sh, sw, top, left, dh, dw, groups;
  int rows, columns;  // of the result's images

  __device__ int group_channels() const { return channels / groups; }
  __device__ int group_outputs() const { return outputs / groups; }
  __device__ int taps() const { return kh * kw * group_channels(); }
  __device__ int pixels() const { return (int)(images * rows * columns); }
};

#define WINDOW                                                                                    \
  i64 images, i64 height, i64 width, i64 channels, i64 kh, i64 kw, i64 outputs, i64 sh, i64 sw,   \
      i64 top, i64 left, i64 dh, i64 dw, i64 groups, i64 rows, i64 columns
#define WINDOW_GIVEN                                                                              \
  {images,       (int)height, (int)width, (int)channels, (int)kh, (int)kw, (int)outputs,          \
   (int)sh,      (int)sw,     (int)top,   (int)left,     (int)dh, (int)dw, (int)groups,           \
   (int)rows,    (int)columns}

// Where a window begins in its image, and the entries before its first pixel.
struct Corner {
  i64 offset;
  int y, x;
};

// Where a tap lies in a window.
struct Tap {
  int offset, y, x;
};

__device__ inline Corner corner_of(const Window& s, int pixel, int pixels) {
  if (pixel >= pixels) return {0, OUTSIDE, 0};
  unsigned row = (unsigned)pixel / s.columns, image = row / s.rows;
  int y = (int)(row % s.rows) * s.sh - s.top, x = (int)(pixel % s.columns) * s.sw - s.left;
  return {(((i64)image * s.height + y) * s.width + x) * s.channels, y, x};
}

__device__ inline Tap tap_of(const Window& s, int tap, int taps) {
  if (tap >= taps) return {0, OUTSIDE, 0};
  int channels = s.group_channels();
  unsigned place = (unsigned)tap / channels;
  int y = (int)(place / s.kw) * s.dh, x = (int)(place % s.kw) * s.dw;
  return {(y * s.width + x) * s.channels + (int)(tap - place * channels), y, x};
}

__device__ inline ACC pixel_at(const Window& s, const REAL* x, const Corner& corner,
                               const Tap& tap) {
  int row = corner.y + tap.y, column = corner.x + tap.x;
  bool inside = (unsigned)row < (unsigned)s.height && (unsigned)column < (unsigned)s.width;
  return inside ? load(x, corner.offset + tap.offset) : (ACC)0;
}

// The rows of the patch matrix, (pixels, taps) ..
struct Patches {
  static const bool ALONG_INNER = true;
  typedef Corner Place;
  typedef Tap Step;
  const REAL* x;
  Window s;

  __device__ Corner place(int pixel) const { return corner_of(s, pixel, s.pixels()); }
  __device__ Tap step(int tap) const { return tap_of(s, tap, s.taps()); }
  __device__ ACC at(const Corner& corner, const Tap& tap) const {
    return pixel_at(s, x, corner, tap);
  }
};

// .. and of its transpose, (taps, pixels).
struct PatchesTransposed {
  static const bool ALONG_INNER = false;
  typedef Tap Place;
  typedef Corner Step;
  const REAL* x;
  Window s;

  __device__ Tap place(int tap) const { return tap_of(s, tap, s.taps()); }
  __device__ Corner step(int pixel) const { return corner_of(s, pixel, s.pixels()); }
  __device__ ACC at(const Tap& tap, const Corner& corner) const {
    return pixel_at(s, x, corner, tap);
  }
};

// The outputs that an entry of x went to: rows are pixels of x, the sum is over (i, j, o).
struct Cotangents {
  static const bool ALONG_INNER = true;
  typedef Corner Place;
  typedef Tap Step;
  const REAL* ct;
  Window s;

  __device__ Corner place(int pixel) const {
    if (pixel >= s.images * s.height * s.width) return {0, OUTSIDE, 0};
    unsigned row = (unsigned)pixel / s.width, image = row / s.height;
    return {(i64)image * s.rows * s.columns * s.outputs, (int)(row % s.height) + s.top,
            (int)(pixel % s.width) + s.left};
  }
  __device__ Tap step(int inner) const {
    int outputs = s.group_outputs();
    unsigned place = (unsigned)inner / outputs;
    if (place >= (unsigned)(s.kh * s.kw)) return {0, -OUTSIDE, 0};
    return {(int)(inner - place * outputs), (int)(place / s.kw) * s.dh,
            (int)(place % s.kw) * s.dw};
  }
  __device__ ACC at(const Corner& corner, const Tap& tap) const {
    int y = corner.y - tap.y, x = corner.x - tap.x;
    if (y < 0 || x < 0 || y % s.sh || x % s.sw) return 0;
    int row = y / s.sh, column = x / s.sw;
    if (row >= s.rows || column >= s.columns) return 0;
    return load(ct, corner.offset + ((i64)row * s.columns + column) * s.outputs + tap.offset);
  }
};

// The filters with their outputs along the sum: columns are channels, the sum is over (i, j, o).
struct FiltersTransposed {
  static const bool ALONG_INNER = true;
  typedef int Place;
  typedef i64 Step;
  const REAL* w;
  Window s;

  __device__ int place(int channel) const { return channel < s.group_channels() ? channel : -1; }
  __device__ i64 step(int inner) const {
    int outputs = s.group_outputs();
    unsigned place = (unsigned)inner / outputs;
    if (place >= (unsigned)(s.kh * s.kw)) return -1;
    return (i64)place * s.group_channels() * s.outputs + (inner - place * outputs);
  }
  __device__ ACC at(int channel, i64 step) const {
    return channel < 0 || step < 0 ? (ACC)0 : load(w, step + (i64)channel * s.outputs);
  }
};

struct Put {
  REAL* entries;
  int pitch;
  __device__ void operator()(int row, int column, ACC sum) const {
    store(entries, (i64)row * pitch + column, sum);
  }
};

struct PutSum {
  ACC* entries;
  int pitch;
  __device__ void operator()(int row, int column, ACC sum) const {
    entries[(i64)row * pitch + column] = sum;
  }
};

template <class T>
__device__ inline void forward(const REAL* x, const REAL* w, REAL* y, const Window& s) {
  int group = blockIdx.y, outputs = s.group_outputs();
  int across = (outputs + T::COLUMNS - 1) / T::COLUMNS;
  Patches patches = {x + group * s.group_channels(), s};
  MatrixOperand<false> filters = {w + group * outputs, outputs, s.taps(), s.outputs};
  Put result = {y + group * outputs, s.outputs};
  multiply<T>(patches, filters, result, blockIdx.x / across * T::ROWS,
              blockIdx.x % across * T::COLUMNS, s.pixels(), outputs, 0, s.taps());
}

// x: (images, height, width, channels), w: (kh, kw, channels / groups, outputs),
// y: (images, rows, columns, outputs).
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_large(const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ y,
               WINDOW) {
  Window s = WINDOW_GIVEN;
  forward<Large>(x, w, y, s);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv_tall(const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ y,
              WINDOW) {
  Window s = WINDOW_GIVEN;
  forward<Tall>(x, w, y, s);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv_small(const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ y,
               WINDOW) {
  Window s = WINDOW_GIVEN;
  forward<Small>(x, w, y, s);
}

// The same with one thread for an output, for groups of few outputs, which fill no tile.
extern "C" __global__ void conv_direct(const REAL* __restrict__ x, const REAL* __restrict__ w,
                                       REAL* __restrict__ y, WINDOW) {
  Window s = WINDOW_GIVEN;
  int pixels = s.pixels(), taps = s.taps(), inputs = s.group_channels();
  for (i64 e = thread_index(); e < (i64)pixels * s.outputs; e += thread_count()) {
    int pixel = (int)(e / s.outputs), output = (int)(e - (i64)pixel * s.outputs);
    const REAL* image = x + output / s.group_outputs() * inputs;
    Corner corner = corner_of(s, pixel, pixels);
    ACC sum = 0;
    for (int tap = 0; tap < taps; tap += inputs) {
      Tap first = tap_of(s, tap, taps);
      for (int c = 0; c < inputs; ++c, ++first.offset)
        sum += pixel_at(s, image, corner, first) * load(w, (i64)(tap + c) * s.outputs + output);
    }
    store(y, e, sum);
  }
}

// Sums over a slice of the pixels for w, (slices, kh, kw, channels / groups, outputs); blockIdx.z
// is the slice, of `slice` pixels. Adding slices in their order keeps the bits the same.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_filter(const REAL* __restrict__ x, const REAL* __restrict__ ct, ACC* __restrict__ sums,
                i64 slice, WINDOW) {
  Window s = WINDOW_GIVEN;
  int group = blockIdx.y, own = s.group_outputs(), taps = s.taps(), pixels = s.pixels();
  int across = (own + Small::COLUMNS - 1) / Small::COLUMNS;
  i64 begin = blockIdx.z * slice, end = begin + slice < pixels ? begin + slice : pixels;
  PatchesTransposed patches = {x + group * s.group_channels(), s};
  // A slice is whole strips, so that only the last one's may reach past its end, where all is 0.
  MatrixOperand<false> cotangents = {ct + group * own, own, pixels, s.outputs};
  PutSum result = {sums + (i64)blockIdx.z * taps * s.outputs + group * own, s.outputs};
  multiply<Small>(patches, cotangents, result, blockIdx.x / across * Small::ROWS,
                  blockIdx.x % across * Small::COLUMNS, taps, own, (int)begin, (int)end);
}

// w = the sum of slices of `size` entries.
extern "C" __global__ void add_slices(const ACC* __restrict__ sums, REAL* __restrict__ w,
                                      i64 slices, i64 size) {
  for (i64 e = thread_index(); e < size; e += thread_count()) {
    ACC total = 0;
    for (i64 i = 0; i < slices; ++i) total += sums[i * size + e];
    store(w, e, total);
  }
}

// ct: (images, rows, columns, outputs); x: (images, height, width, channels), all of it is written.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_input(const REAL* __restrict__ ct, const REAL* __restrict__ w, REAL* __restrict__ x,
               WINDOW) {
  Window s = WINDOW_GIVEN;
  int group = blockIdx.y, inputs = s.group_channels();
  int across = (inputs + Small::COLUMNS - 1) / Small::COLUMNS;
  Cotangents cotangents = {ct + group * s.group_outputs(), s};
  FiltersTransposed filters = {w + group * s.group_outputs(), s};
  Put result = {x + group * inputs, s.channels};
  multiply<Small>(cotangents, filters, result, blockIdx.x / across * Small::ROWS,
                  blockIdx.x % across * Small::COLUMNS, (int)(s.images * s.height * s.width),
                  inputs, 0, s.kh * s.kw * s.group_outputs());
}

// --- the patch matrix in memory: the plain form

// patches: (groups, pixels, taps).
extern "C" __global__ void im2col(const REAL* __restrict__ x, REAL* __restrict__ patches, WINDOW) {
  Window s = WINDOW_GIVEN;
  int pixels = s.pixels(), taps = s.taps();
  for (i64 e = thread_index(); e < (i64)s.groups * pixels * taps; e += thread_count()) {
    i64 row = e / taps;
    const REAL* image = x + row / pixels * s.group_channels();
    Corner corner = corner_of(s, (int)(row % pixels), pixels);
    store(patches, e, pixel_at(s, image, corner, tap_of(s, (int)(e - row * taps), taps)));
  }
}

// x, all of it: each entry the sum of what its copies in the patch matrix hold.
extern "C" __global__ void col2im(const REAL* __restrict__ patches, REAL* __restrict__ x, WINDOW) {
  Window s = WINDOW_GIVEN;
  int inputs = s.group_channels(), taps = s.taps();
  i64 pixels = s.pixels();
  for (i64 e = thread_index(); e < s.images * s.height * s.width * s.channels;
       e += thread_count()) {
    i64 place = e / s.channels;
    int channel = (int)(e - place * s.channels), column = (int)(place % s.width) + s.left;
    int row = (int)(place / s.width % s.height) + s.top;
    i64 first = channel / inputs * pixels + place / s.width / s.height * s.rows * s.columns;
    ACC sum = 0;
    for (int i = 0; i < s.kh; ++i) {
      int y = row - i * s.dh;
      if (y < 0 || y % s.sh || y / s.sh >= s.rows) continue;
      for (int j = 0; j < s.kw; ++j) {
        int x_ = column - j * s.dw;
        if (x_ < 0 || x_ % s.sw || x_ / s.sw >= s.columns) continue;
        i64 pixel = first + (i64)(y / s.sh) * s.columns + x_ / s.sw;
        sum += load(patches, pixel * taps + (i * s.kw + j) * inputs + channel % inputs);
      }
    }
    store(x, e, sum);
  }
}
