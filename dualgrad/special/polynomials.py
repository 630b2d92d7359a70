"""Orthogonal polynomials in x, hypergeometric functions in z, Wright's function.

The derivative of each family is another family of a lower degree, smooth up to the ends of the
interval. Source: NIST Digital Library of Mathematical Functions, 18.9, 13.3, 15.5 and 10.46.
"""

import numpy as np

from .. import special as sp

DEGREE = "n, the degree"


def _lower(n):
    """The degree below n, not below 0: there the factor n makes the derivative 0."""
    return max(n - 1, 0) if isinstance(n, int) else np.where(n == 0, 0, n - 1)


def _some(n):
    """1, and 0 for the constant polynomial: a factor where the formula has none."""
    return int(n != 0) if isinstance(n, int) else (n != 0) * 1


def _gegenbauer(order):
    """The derivative of the Gegenbauer polynomial of an order, over twice the order."""
    return lambda n, x: _some(n) * sp.eval_gegenbauer(_lower(n), order + 1, x)


def _jacobi_slope(n, a, b, x):
    return 0.5 * _some(n) * (n + a + b + 1) * sp.eval_jacobi(_lower(n), a + 1, b + 1, x)


def _associated_slope(m, v, x, y):
    """-(P(m+1, v) + m x P(m, v) / s) / s, s = sqrt(1 - x**2) (DLMF 14.10.5); NaN at x = 1, -1."""
    s = np.sqrt(1 - x * x)
    return -(sp.lpmv(m + 1, v, x) + m * x * y / s) / s


SMOOTH = {
    "eval_jacobi": (DEGREE, "alpha", "beta", lambda n, a, b, x, y: _jacobi_slope(n, a, b, x)),
    "eval_sh_jacobi": (
        DEGREE, "p", "q", lambda n, p, q, x, y: n * sp.eval_sh_jacobi(_lower(n), p + 2, q + 1, x),
    ),
    "eval_gegenbauer": (
        DEGREE, "alpha", lambda n, a, x, y: 2 * a * _gegenbauer(a)(n, x),
    ),
    "eval_legendre": (DEGREE, lambda n, x, y: _jacobi_slope(n, 0, 0, x)),
    "eval_sh_legendre": (DEGREE, lambda n, x, y: 2 * _jacobi_slope(n, 0, 0, 2 * x - 1)),
    "eval_chebyt": (DEGREE, lambda n, x, y: n * sp.eval_chebyu(_lower(n), x)),
    "eval_chebyu": (DEGREE, lambda n, x, y: 2 * _gegenbauer(1)(n, x)),
    "eval_chebyc": (DEGREE, lambda n, x, y: n * sp.eval_chebys(_lower(n), x)),
    "eval_chebys": (DEGREE, lambda n, x, y: _gegenbauer(1)(n, 0.5 * x)),
    "eval_sh_chebyt": (DEGREE, lambda n, x, y: 2 * n * sp.eval_sh_chebyu(_lower(n), x)),
    "eval_sh_chebyu": (DEGREE, lambda n, x, y: 4 * _gegenbauer(1)(n, 2 * x - 1)),
    "eval_hermite": (DEGREE, lambda n, x, y: 2 * n * sp.eval_hermite(_lower(n), x)),
    "eval_hermitenorm": (DEGREE, lambda n, x, y: n * sp.eval_hermitenorm(_lower(n), x)),
    "eval_laguerre": (DEGREE, lambda n, x, y: -_some(n) * sp.eval_genlaguerre(_lower(n), 1, x)),
    "eval_genlaguerre": (
        DEGREE, "alpha", lambda n, a, x, y: -_some(n) * sp.eval_genlaguerre(_lower(n), a + 1, x),
    ),
    "lpmv": ("m, the order", "v, the degree", _associated_slope),
    "hyp0f1": ("v", lambda v, z, y: sp.hyp0f1(v + 1, z) / v),
    "hyp1f1": ("a", "b", lambda a, b, z, y: a / b * sp.hyp1f1(a + 1, b + 1, z)),
    "hyp2f1": ("a", "b", "c", lambda a, b, c, z, y: a * b / c * sp.hyp2f1(a + 1, b + 1, c + 1, z)),
    "hyperu": ("a", "b", lambda a, b, x, y: -a * sp.hyperu(a + 1, b + 1, x)),
    "wright_bessel": ("a", "b", lambda a, b, x, y: sp.wright_bessel(a, b + a, x)),
    "log_wright_bessel": (
        "a", "b", lambda a, b, x, y: np.exp(sp.log_wright_bessel(a, b + a, x) - y),
    ),
}  # fmt: skip
