"""The gamma function and its relatives: beta, zeta, incomplete gamma and beta, binomials.

Source: NIST Digital Library of Mathematical Functions, chapters 5, 8 and 25.
"""

import math

import numpy as np

from .. import special as sp
from .rules import smooth

SHAPE = "a, the shape"


def _rgamma_slope(x, y):
    """-digamma(x) / gamma(x), by reflection left of 1/2, where the factors have poles."""
    left = np.real(x) < 0.5
    r = np.where(left, 1 - x, 1.0)
    s = np.where(left, 1.0, x)
    angle = math.pi * np.where(left, x, 0.0)
    reflected = sp.gamma(r) * (np.cos(angle) - np.sin(angle) / math.pi * sp.digamma(r))
    return np.where(left, reflected, -sp.rgamma(s) * sp.digamma(s))


def beta_density(a, b, x):
    """x**(a-1) (1-x)**(b-1) / B(a, b), by logarithms so that large a and b do not overflow."""
    return np.exp(sp.xlogy(a - 1, x) + sp.xlog1py(b - 1, -x) - sp.betaln(a, b))


def gamma_density(a, x):
    """x**(a-1) exp(-x) / gamma(a), by logarithms."""
    return np.exp(sp.xlogy(a - 1, x) - x - sp.gammaln(a))


SMOOTH = {
    "gamma": (lambda x, y: y * sp.digamma(x),),
    "gammaln": (lambda x, y: sp.digamma(x),),
    "loggamma": (lambda x, y: sp.digamma(x),),
    "psi": (lambda x, y: sp.polygamma(1, x),),
    "rgamma": (_rgamma_slope,),
    "_zeta": ("x", lambda x, q, y: -x * sp.zeta(x + 1, q)),
    "_riemann_zeta": ("x",),
    "zetac": ("x",),
    "beta": (
        lambda a, b, y: y * (sp.digamma(a) - sp.digamma(a + b)),
        lambda a, b, y: y * (sp.digamma(b) - sp.digamma(a + b)),
    ),
    "betaln": (
        lambda a, b, y: sp.digamma(a) - sp.digamma(a + b),
        lambda a, b, y: sp.digamma(b) - sp.digamma(a + b),
    ),
    "binom": (
        lambda n, k, y: y * (sp.digamma(n + 1) - sp.digamma(n - k + 1)),
        lambda n, k, y: y * (sp.digamma(n - k + 1) - sp.digamma(k + 1)),
    ),
    "poch": (
        lambda a, m, y: y * (sp.digamma(a + m) - sp.digamma(a)),
        lambda a, m, y: y * sp.digamma(a + m),
    ),
    "betainc": ("a", "b", lambda a, b, x, y: beta_density(a, b, x)),
    "betaincc": ("a", "b", lambda a, b, x, y: -beta_density(a, b, x)),
    "betaincinv": ("a", "b", lambda a, b, p, x: 1 / beta_density(a, b, x)),
    "betainccinv": ("a", "b", lambda a, b, p, x: -1 / beta_density(a, b, x)),
    "gammainc": (SHAPE, lambda a, x, y: gamma_density(a, x)),
    "gammaincc": (SHAPE, lambda a, x, y: -gamma_density(a, x)),
    "gammaincinv": (SHAPE, lambda a, p, x: 1 / gamma_density(a, x)),
    "gammainccinv": (SHAPE, lambda a, p, x: -1 / gamma_density(a, x)),
}

CONSTANT = ("gammasgn",)

# --- polygamma, which scipy has for real numbers

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
FURTHEST = -1e4  # real parts left of it would need too many terms: NaN


def _polygamma_value(n, x):
    if np.iscomplexobj(x):
        return np.where(n == 0, sp.digamma(x), _complex_polygamma(np.maximum(n, 1), x))[()]
    return sp.scipy_special().polygamma(n, x)


def _complex_polygamma(n, z):
    """(-1)**(n+1) n! zeta(n + 1, z), zeta by Euler and Maclaurin's sum right of a shift."""
    s = n + 1
    z = np.where(np.real(z) < FURTHEST, np.nan, z)
    nearest = np.min(np.nan_to_num(np.real(z)), initial=math.inf)
    steps = max(0, math.ceil(16 + np.max(n, initial=1) - nearest)) if math.isfinite(nearest) else 0
    total = np.zeros_like(z)
    for k in range(steps):
        total = total + (z + k) ** -s
    w = z + steps
    total = total + w ** (1.0 - s) / n + w**-s / 2
    rising = s * w ** (-1.0 - s)
    for k, bernoulli in enumerate(BERNOULLI, 1):
        total = total + bernoulli / math.factorial(2 * k) * rising
        rising = rising * (s + 2 * k - 1) * (s + 2 * k) / (w * w)
    return (-1.0) ** s * sp.gamma(s * 1.0) * total


polygamma = smooth(
    _polygamma_value, "polygamma", "n, the order", lambda n, x, y: sp.polygamma(n + 1, x)
)
