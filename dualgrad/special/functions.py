"""The functions of scipy.special that are no ufuncs, written for arrays and duals.

They take and return what scipy's do; plain arguments give scipy's values.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import special as sp
from ..dual import Array, find_level, primal_of
from ..errors import MissingRuleError
from ..ops import reductions
from ..ops.results import array
from . import bessel, elementary, gammas
from .rules import unknown


def logsumexp(
    a: Array, axis: Any = None, b: Array | None = None, keepdims: bool = False,
    return_sign: bool = False,
) -> Any:  # fmt: skip
    """Return log(sum(b * exp(a))) over an axis, without overflow; the arguments are scipy's.

    Args:
        a, b: arrays of shapes that broadcast, either or both duals; b may be negative or 0.
        axis: an int, a tuple of ints, or None for all.
        keepdims: keep the reduced axes with length 1.
        return_sign: return (log|sum|, sign of the sum), the sign as a plain array where it is
            real; without it the logarithm of a negative sum is NaN.
    """
    a = array(a)
    if find_level([a, b]) is None:
        return sp.scipy_special().logsumexp(a, axis, b, keepdims, return_sign)
    if a.dtype.kind not in "fc":
        a = np.astype(a, np.float64)
    if find_level([b]) is None and a.dtype.kind == "f" and (b is None or np.all(np.real(b) >= 0)):
        log = reductions.logsumexp(_weighted(a, b), axis, keepdims)
        return (
            (log, (primal_of(log) != -math.inf) * np.ones_like(primal_of(log)))
            if return_sign
            else log
        )
    return _signed_logsumexp(a, axis, 1.0 if b is None else array(b), keepdims, return_sign)


def _weighted(a: Array, b: Any) -> Array:
    """a + log(b), and -inf where b is 0, whatever a is there."""
    if b is None:
        return a
    hidden = np.equal(b, 0)
    b = np.where(hidden, 1.0, b)
    b = np.astype(b, np.result_type(a.dtype, b.dtype), copy=False)
    return np.where(hidden, -math.inf, a + np.log(b))


def _signed_logsumexp(a: Array, axis: Any, b: Array, keepdims: bool, return_sign: bool) -> Any:
    """logsumexp with weights that may be negative, complex or duals."""
    if find_level([b]) is None:  # a weight of 0 that does not move hides what it weighs
        a = np.where(np.equal(b, 0), -math.inf, a)
    top = np.max(np.real(primal_of(a)), axis=axis, keepdims=True, initial=-math.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.sum(b * np.exp(a - top), axis=axis, keepdims=keepdims)
    top = top if keepdims else np.squeeze(top, axis)
    if not return_sign:
        return np.log(total) + top
    return np.log(np.abs(total)) + top, np.sign(total)


def softmax(x: Array, axis: Any = None) -> Array:
    """Return exp(x) / sum(exp(x)) over an axis, a tuple of axes, or (None) all of x."""
    x = array(x)
    if find_level([x]) is None:
        return sp.scipy_special().softmax(x, axis)
    return np.exp(log_softmax(x, axis))


def log_softmax(x: Array, axis: Any = None) -> Array:
    """Return x - logsumexp(x) over an axis, a tuple of axes, or (None) all of x."""
    x = array(x)
    if find_level([x]) is None:
        return sp.scipy_special().log_softmax(x, axis)
    return x - logsumexp(x, axis, keepdims=True)


def polygamma(n: Array, x: Array) -> Array:
    """Return the n-th derivative of digamma, for real x as scipy gives it and for complex x too.

    Complex x left of -10000 gives NaN for n > 0.
    """
    if find_level([n]) is not None:
        unknown("polygamma", "n, the order")()
    return gammas.polygamma(array(n), array(x))


def multigammaln(a: Array, d: int) -> Array:
    """Return the logarithm of the multivariate gamma function of dimension d."""
    if find_level([a]) is None:
        return sp.scipy_special().multigammaln(a, d)
    sp.scipy_special().multigammaln(primal_of(a), d)  # which checks a and d
    total = d * (d - 1) / 4 * math.log(math.pi)
    for j in range(int(d)):
        total = total + sp.gammaln(a - 0.5 * j)
    return total


def zeta(x: Array, q: Array | None = None, out: Any = None) -> Array:
    """Return Riemann's zeta(x), or Hurwitz's zeta(x, q), which is differentiable in q."""
    return sp.scipy_special().zeta(x, q, out)


def sinc(x: Array) -> Array:
    """Return sin(pi x) / (pi x), 1 at 0, smooth there at every order."""
    return elementary.sinc(array(x))


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)); the slope is expit(x)."""
    return -sp.log_expit(-array(x))


def _without_rule(name: str) -> Callable:
    """Return scipy's function, which refuses duals by name."""

    def function(*args: Any, **kwargs: Any) -> Any:
        if find_level([*args, *kwargs.values()]) is not None:
            raise MissingRuleError(
                f"dg.special.{name} has no tangent rule and an argument is a dual. Pass "
                f"dg.primal(x) if this derivative is not wanted."
            )
        return getattr(sp.scipy_special(), name)(*args, **kwargs)

    function.__name__ = name
    return function


NO_RULE = """
    comb perm factorial factorial2 factorialk diric ellip_harm ellip_harm_2 ellip_normal lmbda
    riccati_jn riccati_yn assoc_laguerre stirling2 lqn lqmn
""".split()

FUNCTIONS: dict[str, Callable] = {
    "logsumexp": logsumexp,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "polygamma": polygamma,
    "multigammaln": multigammaln,
    "zeta": zeta,
    "sinc": sinc,
    "softplus": softplus,
    "spherical_jn": bessel.spherical_jn,
    "spherical_yn": bessel.spherical_yn,
    "spherical_in": bessel.spherical_in,
    "spherical_kn": bessel.spherical_kn,
    "jvp": bessel.derivatives("jv", -1),
    "yvp": bessel.derivatives("yv", -1),
    "ivp": bessel.derivatives("iv", 1),
    "kvp": bessel.derivatives("kv", 1, -1),
    "h1vp": bessel.derivatives("hankel1", -1),
    "h2vp": bessel.derivatives("hankel2", -1),
    **{name: _without_rule(name) for name in NO_RULE},
}
