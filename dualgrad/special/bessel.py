"""Bessel functions and their kind: Hankel, Kelvin, Struve, spherical; in z, never in the order.

Each derivative is a recurrence between neighbouring orders, smooth at z = 0 and right at every
order of differentiation. Source: NIST Digital Library of Mathematical Functions, chapters 10, 11.
"""

import math

import numpy as np

from .. import special as sp
from ..dual import primal_of
from ..primitive import Primitive
from .rules import component, is_complex, smooth, together

ORDER = "v, the order"
INTEGER_ORDER = "n, the order"


def _difference(name):
    """(f(v-1, z) - f(v+1, z)) / 2."""
    return lambda v, z, y: 0.5 * (getattr(sp, name)(v - 1, z) - getattr(sp, name)(v + 1, z))


def _mean(name):
    """(f(v-1, z) + f(v+1, z)) / 2."""
    return lambda v, z, y: 0.5 * (getattr(sp, name)(v - 1, z) + getattr(sp, name)(v + 1, z))


def _struve_term(v, x):
    return (0.5 * x) ** v * sp.rgamma(v + 1.5) / math.sqrt(math.pi)


SMOOTH = {
    "j0": (lambda x, y: -sp.j1(x),),
    "j1": (lambda x, y: 0.5 * (sp.j0(x) - sp.jv(2, x)),),
    "jv": (ORDER, _difference("jv")),
    "y0": (lambda x, y: -sp.y1(x),),
    "y1": (lambda x, y: 0.5 * (sp.y0(x) - sp.yn(2, x)),),
    "yn": (INTEGER_ORDER, _difference("yn")),
    "yv": (ORDER, _difference("yv")),
    "i0": (lambda x, y: sp.i1(x),),
    "i0e": (lambda x, y: sp.i1e(x) - np.sign(x) * y,),
    "i1": (lambda x, y: 0.5 * (sp.i0(x) + sp.iv(2, x)),),
    "i1e": (lambda x, y: 0.5 * (sp.i0e(x) + sp.ive(2, x)) - np.sign(x) * y,),
    "iv": (ORDER, _mean("iv")),
    "k0": (lambda x, y: -sp.k1(x),),
    "k0e": (lambda x, y: y - sp.k1e(x),),
    "k1": (lambda x, y: -0.5 * (sp.k0(x) + sp.kn(2, x)),),
    "k1e": (lambda x, y: y - 0.5 * (sp.k0e(x) + sp.kve(2, x)),),
    "kn": (INTEGER_ORDER, lambda n, z, y: -_mean("kn")(n, z, y)),
    "kv": (ORDER, lambda v, z, y: -_mean("kv")(v, z, y)),
    "kve": (ORDER, lambda v, z, y: y - _mean("kve")(v, z, y)),
    "hankel1": (ORDER, _difference("hankel1")),
    "hankel1e": (ORDER, lambda v, z, y: _difference("hankel1e")(v, z, y) - 1j * y),
    "hankel2": (ORDER, _difference("hankel2")),
    "hankel2e": (ORDER, lambda v, z, y: _difference("hankel2e")(v, z, y) + 1j * y),
    "struve": (ORDER, lambda v, x, y: _difference("struve")(v, x, y) + 0.5 * _struve_term(v, x)),
    "modstruve": (ORDER, lambda v, x, y: _mean("modstruve")(v, x, y) + 0.5 * _struve_term(v, x)),
    "itstruve0": (lambda x, y: sp.struve(0, x),),
    "itmodstruve0": (lambda x, y: sp.modstruve(0, x),),
    "it2struve0": (lambda x, y: -sp.struve(0, x) / x,),
    # --- Kelvin functions: ber + i bei is J0 on a ray of the complex plane, ker + i kei is K0
    "ber": (lambda x, y: sp.berp(x),),
    "bei": (lambda x, y: sp.beip(x),),
    "ker": (lambda x, y: sp.kerp(x),),
    "kei": (lambda x, y: sp.keip(x),),
    "berp": (lambda x, y: np.real(_kelvin_j_curvature(x)),),
    "beip": (lambda x, y: np.imag(_kelvin_j_curvature(x)),),
    "kerp": (lambda x, y: np.real(_kelvin_k_curvature(x)),),
    "keip": (lambda x, y: np.imag(_kelvin_k_curvature(x)),),
}


def _kelvin_j_curvature(x):
    """The second derivative of ber + i bei."""
    z = x * complex(-math.sqrt(0.5), math.sqrt(0.5))
    return -0.5j * (sp.jv(2, z) - sp.jv(0, z))


def _kelvin_k_curvature(x):
    """The second derivative of ker + i kei."""
    z = x * complex(math.sqrt(0.5), math.sqrt(0.5))
    return 0.5j * (sp.kv(0, z) + sp.kv(2, z))


# --- scaled by exp(-|part of z|), which is not analytic: the scale is an argument of its own


def _scaled(name, part, combine):
    """Return the rule of jve, yve or ive: the exponent follows |part(z)| where z is complex."""

    def slope(v, z, s, y):
        return 0.5 * combine(primitive(v - 1, z, s), primitive(v + 1, z, s))

    def value(v, z, s):
        return getattr(sp, name)(v, z)

    def rule(v, z):
        return primitive(v, z, np.abs(part(z)))

    primitive = smooth(value, name, ORDER, slope, lambda v, z, s, y: -y)
    return rule


def _imaginary_part(z):
    return np.imag(z) if is_complex(z) else 0.0


def _real_part(z):
    return np.real(z) if is_complex(z) else z


_airy_b: Primitive = component("airy", 2, lambda z, y: _airy_b_slope(z))
_airy_b_slope: Primitive = component("airy", 3, lambda z, y: z * _airy_b(z))
_airy_a: Primitive = component("airy", 0, lambda z, y: _airy_a_slope(z))
_airy_a_slope: Primitive = component("airy", 1, lambda z, y: z * _airy_a(z))

# exp(zeta) Ai and its derivative, zeta = 2/3 z sqrt(z)
_airye_a: Primitive = component("airye", 0, lambda z, y: _airye_a_slope(z) + np.sqrt(z) * y)
_airye_a_slope: Primitive = component("airye", 1, lambda z, y: z * _airye_a(z) + np.sqrt(z) * y)


def _airye_b_value(index):
    return lambda z, s: sp.airye(z)[index]


# exp(-s) Bi and its derivative, s = |Re zeta|
_airye_b: Primitive = smooth(
    _airye_b_value(2), "airye", lambda z, s, y: _airye_b_slope(z, s), lambda z, s, y: -y
)
_airye_b_slope: Primitive = smooth(
    _airye_b_value(3), "airye", lambda z, s, y: z * _airye_b(z, s), lambda z, s, y: -y
)


def _airye(z):
    if is_complex(z):
        s = np.abs(np.real(2 / 3 * z * np.sqrt(z)))
    else:
        s = 2 / 3 * np.where(z > 0, z, 0.0) ** 1.5
    return _airye_a(z), _airye_a_slope(z), _airye_b(z, s), _airye_b_slope(z, s)


WHOLE = {
    "jve": _scaled("jve", _imaginary_part, lambda before, after: before - after),
    "yve": _scaled("yve", _imaginary_part, lambda before, after: before - after),
    "ive": _scaled("ive", _real_part, lambda before, after: before + after),
    "airy": together(_airy_a, _airy_a_slope, _airy_b, _airy_b_slope),
    "airye": _airye,
    "kelvin": together(
        component("kelvin", 0, lambda x, y: sp.kelvin(x)[2]),
        component("kelvin", 1, lambda x, y: sp.kelvin(x)[3]),
        component("kelvin", 2, lambda x, y: _kelvin_j_curvature(x)),
        component("kelvin", 3, lambda x, y: _kelvin_k_curvature(x)),
    ),
    # --- integrals from 0 to x
    "itj0y0": together(
        component("itj0y0", 0, lambda x, y: sp.j0(x)), component("itj0y0", 1, lambda x, y: sp.y0(x))
    ),
    "iti0k0": together(
        component("iti0k0", 0, lambda x, y: sp.i0(x)), component("iti0k0", 1, lambda x, y: sp.k0(x))
    ),
    "itairy": together(
        component("itairy", 0, lambda x, y: _airy_a(x)),
        component("itairy", 1, lambda x, y: _airy_b(x)),
        component("itairy", 2, lambda x, y: _airy_a(-x)),
        component("itairy", 3, lambda x, y: _airy_b(-x)),
    ),
}


def derivatives(name, phase, sign=1):
    """Return scipy's function (v, z, n=1) of the n-th derivative of a Bessel function in z.

    It is the n-fold difference (phase -1) or sum (phase 1) of the neighbouring orders.
    """

    def function(v, z, n=1):
        if not isinstance(n, int) or n < 0:
            raise ValueError(f"n = {n!r} must be a non-negative integer: the derivative's order.")
        terms = [
            phase**i * math.comb(n, i) * getattr(sp, name)(v - n + 2 * i, z) for i in range(n + 1)
        ]
        return sign**n / 2**n * sum(terms[1:], terms[0])

    function.__doc__ = f"The n-th derivative in z of scipy.special.{name}, of arrays and duals."
    return function


# --- spherical Bessel functions, which are no ufuncs in scipy


def _spherical(name, before, after):
    """Return f(n, z, derivative=False) for f' = (before n f(n-1) + after (n+1) f(n+1)) / (2n+1)."""

    def slope(n, z, y=None):
        lower = np.maximum(n - 1, 0)  # at n = 0 its weight is 0, but at a pole it is infinite
        below = np.where(n == 0, 0.0, n * before * primitive(lower, z))
        return (below + after * (n + 1) * primitive(n + 1, z)) / (2 * n + 1)

    def value(n, z):
        return getattr(sp.scipy_special(), name)(n, z)

    def function(n, z, derivative=False):
        n = primal_of(n) if hasattr(n, "dtype") and n.dtype.kind in "iu" else n
        return slope(n, z) if derivative else primitive(n, z)

    primitive = smooth(value, name, INTEGER_ORDER, slope)
    function.__name__ = name
    function.__doc__ = f"scipy.special.{name} of arrays and duals, differentiable in z."
    return function


spherical_jn = _spherical("spherical_jn", 1, -1)
spherical_yn = _spherical("spherical_yn", 1, -1)
spherical_in = _spherical("spherical_in", 1, 1)
spherical_kn = _spherical("spherical_kn", -1, -1)
