// What an operation entry by entry is made of: its value and its slopes.

// A partial derivative. It multiplies the tangent, but where `off` nothing passes, so that
// 0 * inf never makes a NaN, and where `still` a tangent of 0 stays 0 whatever the number is.
struct Slope {
  ACC number;
  bool off, still;
  __device__ Slope() : number(0), off(true), still(false) {}
  __device__ Slope(ACC x) : number(x), off(false), still(false) {}
  __device__ Slope(ACC x, bool nothing, bool guarded) : number(x), off(nothing), still(guarded) {}
};

__device__ inline ACC moved(Slope slope, ACC t) {
  return slope.off || (slope.still && t == 0) ? 0 : slope.number * t;
}

__device__ inline bool is_nan(ACC x) { return x != x; }
__device__ inline bool is_infinite(ACC x) { return fabs(x) == infinity(); }

__device__ inline Slope select(bool taken) { return Slope(1, !taken, false); }

// Of max(a, b) and its like: one where an argument is taken, half at a tie.
__device__ inline Slope share(bool taken, bool tied) {
  return Slope(tied ? (ACC)0.5 : (ACC)1, !taken && !tied, false);
}

// May be infinite where the value is finite.
__device__ inline Slope steep(ACC x) { return Slope(x, false, is_infinite(x)); }

// x / length, and 0 where the length is 0.
__device__ inline ACC unit(ACC x, ACC length) { return length == 0 ? 0 : x / length; }

// What stands behind each row of the tables: kernels.cuh puts an operation's own kernels there; a
// generated kernel, which calls several operations (chain.py), needs none of them.
#define KERNELS_OF_1(name)
#define KERNELS_OF_2(name)
#define KERNELS_OF_3(name)

// The rows of the tables: a name, the value, and a slope for each argument that may move.
#define UNARY(name, value, slope)                                        \
  struct name##_operation {                                              \
    enum { COUNT = 1, MASKED = 0 };                                      \
    static __device__ void run(const ACC* in, ACC& y, Slope* slopes) {   \
      const ACC x = in[0];                                               \
      y = value;                                                         \
      slopes[0] = slope;                                                 \
    }                                                                    \
  };                                                                     \
  KERNELS_OF_1(name)

#define BINARY(name, value, slope_a, slope_b)                            \
  struct name##_operation {                                              \
    enum { COUNT = 2, MASKED = 0 };                                      \
    static __device__ void run(const ACC* in, ACC& y, Slope* slopes) {   \
      const ACC a = in[0], b = in[1];                                    \
      y = value;                                                         \
      slopes[0] = slope_a;                                               \
      slopes[1] = slope_b;                                               \
    }                                                                    \
  };                                                                     \
  KERNELS_OF_2(name)
