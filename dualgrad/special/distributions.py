"""Distribution functions of statistics and their inverses, where the slope is a density.

Counts (k, n) and degrees of freedom have no rule. What is inverted has the inverse's slope, one
over the density at the value.
"""

import numpy as np

from .. import special as sp
from .gammas import beta_density, gamma_density

FREEDOM = "df, the degrees of freedom"
TWO = ("dfn, the degrees of freedom", "dfd, the degrees of freedom")
COUNTS = ("k, a count", "n, a count")


def _t_density(df, t):
    power = np.exp(-0.5 * (df + 1) * np.log1p(t * t / df))
    return power / (np.sqrt(df) * sp.beta(0.5 * df, 0.5))


def _chi_square_density(v, x):
    return 0.5 * gamma_density(0.5 * v, 0.5 * x)


def _f_density(dfn, dfd, x):
    ratio = dfn / dfd
    log = sp.xlogy(0.5 * dfn - 1, x) - 0.5 * (dfn + dfd) * np.log1p(ratio * x)
    return np.exp(log + 0.5 * dfn * np.log(ratio) - sp.betaln(0.5 * dfn, 0.5 * dfd))


def _binomial_slope(k, n, p):
    """Minus the derivative in p of the probability of at most k of n."""
    k = np.floor(k)
    return np.exp(sp.xlogy(k, p) + sp.xlog1py(n - k - 1, -p) - sp.betaln(n - k, k + 1))


def _negative_binomial_slope(k, n, p):
    return beta_density(n, k + 1, p)


def _poisson_slope(k, m):
    return gamma_density(np.floor(k) + 1, m)


SMOOTH = {
    "stdtr": (FREEDOM, lambda df, t, y: _t_density(df, t)),
    "stdtrit": (FREEDOM, lambda df, p, t: 1 / _t_density(df, t)),
    "stdtridf": ("p", "t"),
    "chdtr": (FREEDOM, lambda v, x, y: _chi_square_density(v, x)),
    "chdtrc": (FREEDOM, lambda v, x, y: -_chi_square_density(v, x)),
    "chdtri": (FREEDOM, lambda v, p, x: -1 / _chi_square_density(v, x)),
    "chdtriv": ("p", "x"),
    "fdtr": (*TWO, lambda a, b, x, y: _f_density(a, b, x)),
    "fdtrc": (*TWO, lambda a, b, x, y: -_f_density(a, b, x)),
    "fdtri": (*TWO, lambda a, b, p, x: 1 / _f_density(a, b, x)),
    "gdtr": (
        lambda a, b, x, y: x * gamma_density(b, a * x),
        "b, the shape",
        lambda a, b, x, y: a * gamma_density(b, a * x),
    ),
    "gdtrc": (
        lambda a, b, x, y: -x * gamma_density(b, a * x),
        "b, the shape",
        lambda a, b, x, y: -a * gamma_density(b, a * x),
    ),
    "gdtrix": (
        lambda a, b, p, x: -x / a,
        "b, the shape",
        lambda a, b, p, x: 1 / (a * gamma_density(b, a * x)),
    ),
    "gdtria": (
        lambda p, b, x, a: 1 / (x * gamma_density(b, a * x)),
        "b, the shape",
        lambda p, b, x, a: -a / x,
    ),
    "gdtrib": ("a", "p", "x"),
    "bdtr": (*COUNTS, lambda k, n, p, y: -_binomial_slope(k, n, p)),
    "bdtrc": (*COUNTS, lambda k, n, p, y: _binomial_slope(k, n, p)),
    "bdtri": (*COUNTS, lambda k, n, y, p: -1 / _binomial_slope(k, n, p)),
    "nbdtr": (*COUNTS, lambda k, n, p, y: _negative_binomial_slope(k, n, p)),
    "nbdtrc": (*COUNTS, lambda k, n, p, y: -_negative_binomial_slope(k, n, p)),
    "nbdtri": (*COUNTS, lambda k, n, y, p: 1 / _negative_binomial_slope(k, n, p)),
    "pdtr": (COUNTS[0], lambda k, m, y: -_poisson_slope(k, m)),
    "pdtrc": (COUNTS[0], lambda k, m, y: _poisson_slope(k, m)),
    "pdtri": (COUNTS[0], lambda k, y, m: -1 / _poisson_slope(k, m)),
}
