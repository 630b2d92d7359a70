// Exponentials, logarithms, trigonometric and hyperbolic functions, and activations.

__device__ inline ACC logarithm_of_sum(ACC a, ACC b) {
  if (a == b) return a + (ACC)0.6931471805599453;  // infinities too
  ACC gap = a - b;
  if (gap > 0) return a + log1p(exp(-gap));
  return gap <= 0 ? b + log1p(exp(gap)) : gap;
}

__device__ inline ACC binary_logarithm_of_sum(ACC a, ACC b) {
  if (a == b) return a + 1;
  const ACC unit = (ACC)1.4426950408889634;  // log2(e)
  ACC gap = a - b;
  if (gap > 0) return a + unit * log1p(exp2(-gap));
  return gap <= 0 ? b + unit * log1p(exp2(gap)) : gap;
}

// x - y, where y is the logarithm of a sum of exponentials; x where y is -inf.
__device__ inline ACC below(ACC x, ACC y) { return y == -infinity() ? x : x - y; }

// x / length**2 without overflow, and 0 where the length is 0.
__device__ inline ACC over_square(ACC x, ACC length) { return unit(unit(x, length), length); }

// sqrt(1 - x**2), accurate near 1.
__device__ inline ACC leg(ACC x) { return sqrt(-(x - 1)) * sqrt(x + 1); }

__device__ inline ACC logistic(ACC x) {
  ACC e = exp(-fabs(x));  // never overflows
  return (x >= 0 ? (ACC)1 : e) / (1 + e);
}

// Twice the normal distribution function, and its density.
__device__ inline ACC normal_twice(ACC x) { return 1 + erf(x * (ACC)0.7071067811865476); }
__device__ inline ACC normal_density(ACC x) {
  return (ACC)0.3989422804014327 * exp((ACC)-0.5 * x * x);
}

UNARY(exp, exp(x), y)
UNARY(exp2, exp2(x), (ACC)0.6931471805599453 * y)
UNARY(expm1, expm1(x), exp(x))
UNARY(log, log(x), 1 / x)
UNARY(log2, log2(x), 1 / ((ACC)0.6931471805599453 * x))
UNARY(log10, log10(x), 1 / ((ACC)2.302585092994046 * x))
UNARY(log1p, log1p(x), 1 / (1 + x))
BINARY(logaddexp, logarithm_of_sum(a, b), exp(below(a, y)), exp(below(b, y)))
BINARY(logaddexp2, binary_logarithm_of_sum(a, b), exp2(below(a, y)), exp2(below(b, y)))

UNARY(sin, sin(x), cos(x))
UNARY(cos, cos(x), -sin(x))
UNARY(tan, tan(x), 1 + y * y)
UNARY(arcsin, asin(x), steep(1 / leg(x)))
UNARY(arccos, acos(x), steep(-1 / leg(x)))
UNARY(arctan, atan(x), 1 / (1 + x * x))
BINARY(arctan2, atan2(a, b), over_square(b, hypot(a, b)), -over_square(a, hypot(a, b)))

UNARY(sinh, sinh(x), cosh(x))
UNARY(cosh, cosh(x), sinh(x))
UNARY(tanh, tanh(x), 1 - y * y)
UNARY(arcsinh, asinh(x), 1 / sqrt(x * x + 1))
UNARY(arccosh, acosh(x), steep(1 / (sqrt(x - 1) * sqrt(x + 1))))
UNARY(arctanh, atanh(x), 1 / ((1 - x) * (1 + x)))

UNARY(relu, x > 0 || is_nan(x) ? x : 0, select(!(x <= 0)))
UNARY(sigmoid, logistic(x), y * (1 - y))
UNARY(erf, erf(x), (ACC)1.1283791670955126 * exp(-x * x))
// x times the normal distribution function.
UNARY(gelu, (ACC)0.5 * x * normal_twice(x), (ACC)0.5 * normal_twice(x) + x * normal_density(x))
