"""Functions near exp and log: logistic, entropies, losses, Box-Cox, exponential integrals."""

import math

import numpy as np

from .. import special as sp
from .rules import component, smooth, together

LN2, LN10, DEGREE = math.log(2), math.log(10), math.pi / 180


def _quotient(x, y):
    """x / y, and 0 where both are 0, as x log y is."""
    both = (x == 0) & (y == 0)
    return np.where(both, 0.0, x / np.where(both, 1.0, y))


def _log1p_over(t):
    """log1p(t) / t, smooth at 0."""
    near = np.abs(t) < 0.5
    s, far = np.where(near, t, 0.0), np.where(near, 1.0, t)
    return np.where(near, sp.hyp2f1(1, 1, 2, -s), np.log1p(far) / far)


def _log1p_over_slope(t):
    """The derivative of log1p(t) / t, without cancellation near 0."""
    near = np.abs(t) < 0.5
    s, far = np.where(near, t, 0.0), np.where(near, 1.0, t)
    other = (1 / (1 + far) - np.log1p(far) / far) / far
    return np.where(near, -0.5 * sp.hyp2f1(2, 2, 3, -s), other)


def _spence_slope(z, y):
    """log(z) / (1 - z), smooth at 1."""
    near = np.abs(z - 1) < 0.5
    far = np.where(near, 2.0, z)
    return np.where(near, -_log1p_over(np.where(near, z - 1, 0.0)), np.log(far) / (1 - far))


def _power_slope(x, y, z):
    return y * x ** (y - 1 + (y == 0))  # the added 1 keeps 0 * 0**-1 out, as for x**y


def _huber_in_delta(delta, r, y):
    return np.where(np.abs(r) <= delta, 0.0, np.abs(r) - delta)


def _huber_in_r(delta, r, y):
    return np.where(np.abs(r) <= delta, r, delta * np.sign(r))


def _pseudo_huber_in_delta(delta, r, y):
    u = r / delta
    s = np.sqrt(1 + u * u)
    return delta * u**4 / (s * (s + 1) ** 2)


def _boxcox_in_exponent(log_x, exponent):
    return 0.5 * log_x**2 * sp.hyp1f1(2, 3, exponent * log_x)


def _tklmbda_slope(x, shape, p):
    """The density; outside the support, which is bounded for a positive shape, 0."""
    inside = (shape <= 0) | (np.abs(x) * shape < 1)
    q = np.where(inside, p, 0.5)
    return np.where(inside, 1 / (q ** (shape - 1) + (1 - q) ** (shape - 1)), 0.0)


def _expn_slope(n, x, y):
    """-expn(n - 1, x); expn(0, x) is exp(-x) / x."""
    lower = np.where(n >= 1, n - 1, 0)
    return np.where(n >= 1, -sp.expn(lower, x), -np.exp(-x) * (1 + 1 / x) / x)


SMOOTH = {
    # --- what NumPy has too
    "exp2": (lambda x, y: LN2 * y,),
    "exp10": (lambda x, y: LN10 * y,),
    "expm1": (lambda x, y: y + 1,),
    "log1p": (lambda x, y: 1 / (1 + x),),
    "cbrt": (lambda x, y: 1 / (3 * y * y),),
    "cosm1": (lambda x, y: -np.sin(x),),
    "powm1": (_power_slope, lambda x, y, z: (z + 1) * np.log(x)),
    "sindg": (lambda x, y: DEGREE * sp.cosdg(x),),
    "cosdg": (lambda x, y: -DEGREE * sp.sindg(x),),
    "tandg": (lambda x, y: DEGREE * (1 + y * y),),
    "cotdg": (lambda x, y: -DEGREE * (1 + y * y),),
    "radian": (
        lambda d, m, s, y: DEGREE,
        lambda d, m, s, y: DEGREE / 60,
        lambda d, m, s, y: DEGREE / 3600,
    ),
    "exprel": (lambda x, y: 0.5 * sp.hyp1f1(2, 3, x),),
    # --- logistic; expit(x) expit(-x) has no cancellation
    "expit": (lambda x, y: y * sp.expit(-x),),
    "logit": (lambda x, y: 1 / (x * (1 - x)),),
    "log_expit": (lambda x, y: sp.expit(-x),),
    # --- entropies
    "xlogy": (lambda x, y, z: np.log(y), lambda x, y, z: _quotient(x, y)),
    "xlog1py": (lambda x, y, z: np.log1p(y), lambda x, y, z: _quotient(x, 1 + y)),
    "entr": (lambda x, y: -np.log(x) - 1,),
    "rel_entr": (lambda x, y, z: np.log(x / y) + 1, lambda x, y, z: -_quotient(x, y)),
    "kl_div": (lambda x, y, z: np.log(x / y), lambda x, y, z: 1 - _quotient(x, y)),
    # --- losses
    "huber": (_huber_in_delta, _huber_in_r),
    "pseudo_huber": (_pseudo_huber_in_delta, lambda d, r, y: r / np.sqrt(1 + (r / d) ** 2)),
    # --- Box-Cox: the slope in the exponent is that of exprel, smooth where the exponent is 0
    "boxcox": (
        lambda x, lmbda, y: x ** (lmbda - 1),
        lambda x, lmbda, y: _boxcox_in_exponent(np.log(x), lmbda),
    ),
    "boxcox1p": (
        lambda x, lmbda, y: (1 + x) ** (lmbda - 1),
        lambda x, lmbda, y: _boxcox_in_exponent(np.log1p(x), lmbda),
    ),
    "inv_boxcox": (
        lambda y, lmbda, x: x / (1 + lmbda * y),
        lambda y, lmbda, x: x * y**2 * _log1p_over_slope(lmbda * y),
    ),
    "inv_boxcox1p": (
        lambda y, lmbda, x: (1 + x) / (1 + lmbda * y),
        lambda y, lmbda, x: (1 + x) * y**2 * _log1p_over_slope(lmbda * y),
    ),
    "tklmbda": (_tklmbda_slope, "lmbda, the shape"),
    # --- exponential integrals and inverses of w exp(w), w + log(w)
    "expi": (lambda x, y: np.exp(x) / x,),
    "exp1": (lambda x, y: -np.exp(-x) / x,),
    "expn": ("n, the order", _expn_slope),
    "spence": (_spence_slope,),
    "_lambertw": (lambda z, k, tol, w: np.exp(-w) / (1 + w), "k, the branch", "tol"),
    "wrightomega": (lambda z, w: w / (1 + w),),
}

WHOLE = {
    "shichi": together(
        component("shichi", 0, lambda x, y: sp.spherical_in(0, x)),
        component("shichi", 1, lambda x, y: np.cosh(x) / x),
    ),
    "sici": together(
        component("sici", 0, lambda x, y: sp.spherical_jn(0, x)),
        component("sici", 1, lambda x, y: np.cos(x) / x),
    ),
}

CONSTANT = ("round",)


def _sinc_slope(x, y):
    return -math.pi * sp.spherical_jn(1, math.pi * x)


sinc = smooth(np.sinc, "sinc", _sinc_slope)
