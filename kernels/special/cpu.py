"""The error function and the normal quantile on NumPy arrays, with numba for large ones."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dispatch

BLOCK = 1 << 13  # entries NumPy works on at a time, so that temporaries stay in the cache

# erf: Source: W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp.
# 23 (1969), in the coefficients of his CALERF. Highest power first, numerator then denominator.
_ERF_SMALL = (  # of erf(x) / x - 1: the numerator is Cody's minus the denominator
    (-0.814222293815396847, -20.4401672084735553, -130.160483783394017)
    + (-905.131288392070259, 365.14075569929885),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2)
    + (1.28261652607737228e3, 2.84423683343917062e3),
)
_ERF_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594)
    + (6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2)
    + (1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2)
    + (5.37181101862009858e2, 1.62138957456669019e3, 3.29079923573345963e3)
    + (4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)

# ndtri: Source: M. J. Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37 (1988), 477-484.
_CENTRE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4)
    + (4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3)
    + (1.3314166789178437745e2, 3.3871328727963666080),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4)
    + (2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2)
    + (4.2313330701600911252e1, 1.0),
)
_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1)
    + (1.27045825245236838258, 3.64784832476320460504, 5.76949722146069140550)
    + (4.63033784615654529590, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2)
    + (1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940)
    + (2.05319162663775882187, 1.0),
)
_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3)
    + (2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580)
    + (5.46378491116411436990, 6.65790464350110377720),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5)
    + (7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1)
    + (5.99832206555887937690e-1, 1.0),
)

# log(m) = 2 atanh(s), s = (m - 1) / (m + 1), minus the leading terms: minimax coefficients of s**2.
# Source: fdlibm's e_log.c, Sun Microsystems, 1993.
_LOG_ODD = (1.479819860511658591e-1, 1.818357216161805012e-1) + (
    2.857142874366239149e-1,
    6.666666666666735130e-1,
)
_LOG_EVEN = (1.531383769920937332e-1, 2.222219843214978396e-1, 3.999999999940941908e-1)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-1, 1.90821492927058770002e-10
_SQRT_HALF = math.sqrt(0.5)


def _horner(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    total = coefficients[0] * x
    for coefficient in coefficients[1:-1]:
        total += coefficient
        total *= x
    total += coefficients[-1]
    return total


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    return _horner(coefficients[0], x) / _horner(coefficients[1], x)


def _by_blocks(function: Callable, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Apply a function of flat float64 arrays block by block; the result has x's shape, `dtype`."""
    flat = x.reshape(-1)
    result = np.empty(flat.size, dtype)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK].astype(np.float64)
        result[start : start + BLOCK] = function(block)
    return result.reshape(x.shape)


def erf(x: Any) -> np.ndarray:
    """Return the error function of x, entry by entry, in x's shape and dtype.

    float16, float32 and float64 are kept; integers give float64. Computed in float64, with an error
    below 3 units in the last place. Infinities give -1 and 1, nan gives nan.

    Source: Cody, 1969 (coefficients above).
    """
    x = np.asarray(x)
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    return _by_blocks(_erf, x, dtype)


def _erf(x: np.ndarray) -> np.ndarray:
    size = np.minimum(np.abs(x), 6.0)  # erf(6) rounds to 1
    small = x + x * _ratio(_ERF_SMALL, np.minimum(size, 0.5) ** 2)
    complement = np.exp(-size * size) * _ratio(_ERF_MIDDLE, size)
    # 0.477 (Cody: 0.46875) is where erf passes 1 / 2 and the complement begins to be the smaller.
    return np.where(size <= 0.477, small, np.copysign(1.0 - complement, x))


def ndtri(u: Any) -> np.ndarray:
    """Return z with P(Z <= z) = u for a standard normal Z, entry by entry, in u's shape and dtype.

    float16, float32 and float64 are kept; integers give float64. 0 and 1 give -inf and inf, what is
    outside [0, 1] nan. The computation is in float64 and uses + - * / and sqrt alone, which round
    the same way everywhere: the NumPy form, the numba form and any other machine's give the same
    bits. The relative error is below 1e-15.

    Source: Wichura, 1988 (AS 241, PPND16; coefficients above).
    """
    u = np.asarray(u)
    dtype = u.dtype if u.dtype.kind == "f" else np.dtype(np.float64)
    if dispatch.loading_pays("ndtri", u.size):
        flat = np.ascontiguousarray(u, np.float64).reshape(-1)
        result = np.empty(u.size, np.float64)
        _ndtri_loops(flat, result)
        return result.astype(dtype, copy=False).reshape(u.shape)
    return _by_blocks(_ndtri, u, dtype)


def _log(x: np.ndarray) -> np.ndarray:
    """Return log(x) for 0 < x < inf with exactly rounded operations alone (no library's log)."""
    mantissa, exponent = np.frexp(x)
    below = mantissa < _SQRT_HALF
    f = np.where(below, 2.0 * mantissa, mantissa) - 1.0
    power = (exponent - below).astype(np.float64)
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    series = w * _horner(_LOG_EVEN, w) + z * _horner(_LOG_ODD, w)
    half = 0.5 * f * f
    return power * _LN2_HIGH - ((half - (s * (half + series) + power * _LN2_LOW)) - f)


def _ndtri(u: np.ndarray) -> np.ndarray:
    inside = (u > 0.0) & (u < 1.0)
    p = np.where(inside, u, 0.5)
    q = p - 0.5
    z = q * _ratio(_CENTRE, 0.180625 - q * q)
    tail = np.flatnonzero(np.abs(q) > 0.425)
    if tail.size:
        p = p[tail]
        r = np.sqrt(-_log(np.minimum(p, 1.0 - p)))
        size = np.where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5.0))
        z[tail] = np.copysign(size, q[tail])
    if not inside.all():
        edge = np.where(u == 0.0, -np.inf, np.where(u == 1.0, np.inf, np.nan))
        z = np.where(inside, z, edge)
    return z


@dispatch.loop("r1 w1", fastmath=False)  # reassociated sums would give other bits
def _ndtri_loops(u, z):
    """`_ndtri` in numba's loops: the same operations in the same order."""
    for i in range(u.size):  # no branch in this loop, so that it runs on vectors
        q = u[i] - 0.5
        r = 0.180625 - q * q
        top, bottom = _CENTRE[0][0], _CENTRE[1][0]
        for j in range(1, 8):
            top = top * r + _CENTRE[0][j]
            bottom = bottom * r + _CENTRE[1][j]
        z[i] = q * (top / bottom)
    for i in range(u.size):
        q = u[i] - 0.5
        if abs(q) <= 0.425:
            continue
        if not (u[i] > 0.0 and u[i] < 1.0):
            z[i] = -np.inf if u[i] == 0.0 else (np.inf if u[i] == 1.0 else np.nan)
            continue
        mantissa, power = math.frexp(min(u[i], 1.0 - u[i]))
        if mantissa < _SQRT_HALF:
            mantissa, power = 2.0 * mantissa, power - 1
        f = mantissa - 1.0
        s = f / (2.0 + f)
        w = (s * s) * (s * s)
        odd, even = _LOG_ODD[0], _LOG_EVEN[0]
        for j in range(1, 4):
            odd = odd * w + _LOG_ODD[j]
        for j in range(1, 3):
            even = even * w + _LOG_EVEN[j]
        half = 0.5 * f * f
        low = s * (half + (w * even + (s * s) * odd)) + power * _LN2_LOW
        r = math.sqrt(-(power * _LN2_HIGH - ((half - low) - f)))
        coefficients, r = (_TAIL, r - 1.6) if r <= 5.0 else (_FAR_TAIL, r - 5.0)
        top, bottom = coefficients[0][0], coefficients[1][0]
        for j in range(1, 8):
            top = top * r + coefficients[0][j]
            bottom = bottom * r + coefficients[1][j]
        z[i] = math.copysign(top / bottom, q)
