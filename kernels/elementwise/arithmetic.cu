// Sums, products, quotients, powers, and the branches that select one argument.

// The quotient rounded down and what is left, as NumPy and Python have them.
__device__ inline ACC remainder_of(ACC a, ACC b) {
  ACC left = fmod(a, b);
  if (b == 0) return left;
  if (left == 0) return copysign((ACC)0, b);
  return (b < 0) == (left < 0) ? left : left + b;
}

__device__ inline ACC quotient_of(ACC a, ACC b) {
  if (b == 0) return a / b;
  ACC left = fmod(a, b);
  ACC quotient = (a - left) / b;
  if (left != 0 && (b < 0) != (left < 0)) quotient -= 1;
  if (quotient == 0) return copysign((ACC)0, a / b);
  ACC whole = floor(quotient);
  return quotient - whole > (ACC)0.5 ? whole + 1 : whole;
}

__device__ inline ACC sign_of(ACC x) { return is_nan(x) ? x : (ACC)((x > 0) - (x < 0)); }

// The added 1 where b is 0 keeps 0 * 0**-1, a NaN, out of x**0.
__device__ inline Slope power_in_base(ACC a, ACC b) { return steep(b * pow(a, b - 1 + (b == 0))); }

// 0**b does not move with b > 0; a negative base has no slope in b.
__device__ inline Slope power_in_exponent(ACC a, ACC y) {
  ACC slope = y * log(a == 0 ? (ACC)1 : a);
  return Slope(slope, false, is_nan(slope) || is_infinite(slope));
}

BINARY(add, a + b, 1, 1)
BINARY(subtract, a - b, 1, -1)
BINARY(multiply, a * b, b, a)
BINARY(divide, a / b, 1 / b, -y / b)
BINARY(remainder, remainder_of(a, b), 1, -quotient_of(a, b))
BINARY(fmod, fmod(a, b), 1, -rint((a - y) / b))
BINARY(power, pow(a, b), power_in_base(a, b), power_in_exponent(a, y))
// An exponent that is a Python number of at least 1: no slope is infinite where the value is finite.
BINARY(power_of_number, b == 2 ? a * a : pow(a, b), b == 2 ? 2 * a : b * pow(a, b - 1), 0)
BINARY(hypot, hypot(a, b), unit(a, y), unit(b, y))
BINARY(copysign, copysign(a, b), sign_of(a) * copysign((ACC)1, b), select(false))
BINARY(heaviside, is_nan(a) ? a : a == 0 ? b : (ACC)(a > 0), select(false), select(a == 0))

BINARY(maximum, larger(a, b), share(a > b || is_nan(a), a == b), share(b > a || is_nan(b), a == b))
BINARY(minimum, -larger(-a, -b), share(a < b || is_nan(a), a == b),
       share(b < a || is_nan(b), a == b))
BINARY(fmax, a >= b || is_nan(b) ? a : b, share(a > b || is_nan(b), a == b),
       share(b > a || is_nan(a), a == b))
BINARY(fmin, a <= b || is_nan(b) ? a : b, share(a < b || is_nan(b), a == b),
       share(b < a || is_nan(a), a == b))
#ifndef HALF  // the neighbour of a float is not that of a half
BINARY(nextafter, nextafter(a, b), 1, select(false))
#endif

UNARY(negative, -x, -1)
UNARY(positive, x, 1)
UNARY(absolute, fabs(x), sign_of(x))
UNARY(reciprocal, 1 / x, -y * y)
UNARY(square, x * x, 2 * x)
UNARY(sqrt, sqrt(x), steep((ACC)0.5 / y))
UNARY(cbrt, cbrt(x), steep(1 / (3 * y * y)))
UNARY(deg2rad, x * (ACC)0.017453292519943295, (ACC)0.017453292519943295)
UNARY(rad2deg, x * (ACC)57.29577951308232, (ACC)57.29577951308232)

// --- three arguments

struct clip_operation {
  enum { COUNT = 3, MASKED = 0 };
  static __device__ void run(const ACC* in, ACC& y, Slope* slopes) {
    const ACC x = in[0], low = in[1], high = in[2];
    const ACC raised = is_nan(x) || x > low ? x : low;
    y = is_nan(raised) || raised < high ? raised : high;
    slopes[0] = select(!(x < low || x > high));  // an edge keeps slope 1, and so does NaN
    slopes[1] = select(x < low && low <= high);
    slopes[2] = select(x > high || high < low);
  }
};
KERNELS_OF_3(clip)

struct where_operation {
  enum { COUNT = 3, MASKED = 1 };
  static __device__ void run(const ACC* in, ACC& y, Slope* slopes) {
    const bool first = in[0] != 0;
    y = first ? in[1] : in[2];
    slopes[1] = select(first);
    slopes[2] = select(!first);
  }
};
KERNELS_OF_3(where)

// What a mask does to a tangent, which is a value here.
struct select_operation {
  enum { COUNT = 2, MASKED = 1 };
  static __device__ void run(const ACC* in, ACC& y, Slope* slopes) { y = in[0] != 0 ? in[1] : 0; }
};
KERNELS_OF_2(select)
