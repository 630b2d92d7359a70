// The standard normal's quantile, with the operations of cpu.py in the same order: the same bits.
//
// Source: M. J. Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37 (1988), 477-484; the
// logarithm after fdlibm's e_log.c, Sun Microsystems, 1993.

// A compiler may turn a * b + c into one rounding where these names are not used.
__device__ inline double ndtri_times(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

__device__ inline double ndtri_plus(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(a, b);
#else
  return a + b;
#endif
}

// x (x (a x + b) + c) + d
__device__ inline double ndtri_cubic(double x, double a, double b, double c, double d) {
  double total = ndtri_plus(ndtri_times(a, x), b);
  total = ndtri_plus(ndtri_times(total, x), c);
  return ndtri_plus(ndtri_times(total, x), d);
}

// The polynomial of degree 7 with these coefficients, the highest power first.
__device__ inline double ndtri_horner(double x, double a, double b, double c, double d, double e,
                                      double f, double g, double h) {
  double total = ndtri_cubic(x, a, b, c, d);
  total = ndtri_plus(ndtri_times(total, x), e);
  total = ndtri_plus(ndtri_times(total, x), f);
  total = ndtri_plus(ndtri_times(total, x), g);
  return ndtri_plus(ndtri_times(total, x), h);
}

// log(x) for 0 < x < 1.
__device__ inline double ndtri_log(double x) {
  int power;
  double mantissa = frexp(x, &power);
  if (mantissa < 0.70710678118654757) {
    mantissa = 2.0 * mantissa;
    power = power - 1;
  }
  double f = mantissa - 1.0;
  double s = f / (2.0 + f);
  double z = ndtri_times(s, s);
  double w = ndtri_times(z, z);
  double odd = ndtri_cubic(w, 1.479819860511658591e-1, 1.818357216161805012e-1,
                             2.857142874366239149e-1, 6.666666666666735130e-1);
  double even = ndtri_plus(ndtri_times(1.531383769920937332e-1, w), 2.222219843214978396e-1);
  even = ndtri_plus(ndtri_times(even, w), 3.999999999940941908e-1);
  double series = ndtri_plus(ndtri_times(w, even), ndtri_times(z, odd));
  double half = ndtri_times(0.5 * f, f);
  double low = ndtri_plus(ndtri_times(s, ndtri_plus(half, series)),
                            ndtri_times(power, 1.90821492927058770002e-10));
  return ndtri_plus(ndtri_times(power, 6.93147180369123816490e-1), -((half - low) - f));
}

// |z| where z is the quantile of p or of 1 - p, whichever is below 0.075: 0 < p < 0.075.
__device__ inline double ndtri_tail(double p) {
  double r = sqrt(-ndtri_log(p));
  if (r <= 5.0) {
    r = r - 1.6;
    return ndtri_horner(r, 7.74545014278341407640e-4, 2.27238449892691845833e-2,
                            2.41780725177450611770e-1, 1.27045825245236838258,
                            3.64784832476320460504, 5.76949722146069140550,
                            4.63033784615654529590, 1.42343711074968357734) /
               ndtri_horner(r, 1.05075007164441684324e-9, 5.47593808499534494600e-4,
                            1.51986665636164571966e-2, 1.48103976427480074590e-1,
                            6.89767334985100004550e-1, 1.67638483018380384940,
                            2.05319162663775882187, 1.0);
  }
  r = r - 5.0;
  return ndtri_horner(r, 2.01033439929228813265e-7, 2.71155556874348757815e-5,
                        1.24266094738807843860e-3, 2.65321895265761230930e-2,
                        2.96560571828504891230e-1, 1.78482653991729133580,
                        5.46378491116411436990, 6.65790464350110377720) /
           ndtri_horner(r, 2.04426310338993978564e-15, 1.42151175831644588870e-7,
                        1.84631831751005468180e-5, 7.86869131145613259100e-4,
                        1.48753612908506148525e-2, 1.36929880922735805310e-1,
                        5.99832206555887937690e-1, 1.0);
}

// z with P(Z <= z) = u: -inf and inf at 0 and 1, nan outside [0, 1].
__device__ inline double ndtri_of(double u) {
  double q = u - 0.5;
  if (fabs(q) <= 0.425) {
    double r = ndtri_plus(0.180625, -ndtri_times(q, q));
    double top = ndtri_horner(r, 2.5090809287301226727e3, 3.3430575583588128105e4,
                                  6.7265770927008700853e4, 4.5921953931549871457e4,
                                  1.3731693765509461125e4, 1.9715909503065514427e3,
                                  1.3314166789178437745e2, 3.3871328727963666080);
    double bottom = ndtri_horner(r, 5.2264952788528545610e3, 2.8729085735721942674e4,
                                     3.9307895800092710610e4, 2.1213794301586595867e4,
                                     5.3941960214247511077e3, 6.8718700749205790830e2,
                                     4.2313330701600911252e1, 1.0);
    return ndtri_times(q, top / bottom);
  }
  if (u > 0.0 && u < 1.0) return copysign(ndtri_tail(u < 0.5 ? u : 1.0 - u), q);
  if (u == 0.0) return log(0.0);
  return u == 1.0 ? -log(0.0) : nan("");
}
