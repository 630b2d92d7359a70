"""Elliptic integrals and functions, the arithmetic-geometric mean.

Every slope is an integral of Carlson's, whose sums do not cancel where Legendre's formulas, such
as (E / (1 - m) - K) / 2m, do. Source: NIST Digital Library of Mathematical Functions, chapter 19.
"""

import math

import numpy as np

from .. import special as sp
from ..primitive import Primitive
from .rules import component, through, together

DOUBLINGS = 12  # each brings the arguments four times closer to one another


def _duplicated_rd(x, y, z):
    """R_D by Carlson's duplication theorem, in plain arithmetic: to be differentiated itself.

    Source: B. C. Carlson, Numerical computation of real or complex elliptic integrals, Numerical
    Algorithms 10 (1995), 13-26, section 2 (DLMF 19.36.2 for the series).
    """
    total, scale = 0.0, 1.0
    for _ in range(DOUBLINGS):
        rx, ry, rz = np.sqrt(x), np.sqrt(y), np.sqrt(z)
        middle = rx * ry + ry * rz + rz * rx
        total = total + scale / (rz * (z + middle))
        scale = scale / 4
        x, y, z = 0.25 * (x + middle), 0.25 * (y + middle), 0.25 * (z + middle)
    mean = (x + y + 3 * z) / 5
    u, v = (mean - x) / mean, (mean - y) / mean
    w = -(u + v) / 3
    e2, e3 = u * v - 6 * w * w, (3 * u * v - 8 * w * w) * w
    e4, e5 = 3 * (u * v - w * w) * w * w, u * v * w**3
    return 3 * total + scale * _series(e2, e3, e4, e5) / (mean * np.sqrt(mean))


def _series(e2, e3, e4, e5):
    """The Taylor series of R_J and R_D about equal arguments, in elementary symmetric functions."""
    odd = e3 / 6 - 9 / 52 * e2 * e3 + 3 / 26 * e5
    return 1 - 3 / 14 * e2 + 9 / 88 * e2 * e2 - 3 / 22 * e4 + odd


def _duplicated_rj(x, y, z, p):
    """R_J by duplication, for p > 0; Source: as for R_D."""
    total, scale = 0.0, 1.0
    product = (p - x) * (p - y) * (p - z)
    for _ in range(DOUBLINGS):
        rx, ry, rz, rp = np.sqrt(x), np.sqrt(y), np.sqrt(z), np.sqrt(p)
        middle = rx * ry + ry * rz + rz * rx
        d = (rp + rx) * (rp + ry) * (rp + rz)
        total = total + scale / d * sp.elliprc(1.0, 1 + scale**3 * product / (d * d))
        scale = scale / 4
        x, y, z, p = (0.25 * (part + middle) for part in (x, y, z, p))
    mean = (x + y + z + 2 * p) / 5
    u, v, w = (mean - x) / mean, (mean - y) / mean, (mean - z) / mean
    q = -0.5 * (u + v + w)
    uvw, e2 = u * v * w, u * v + u * w + v * w - 3 * q * q
    e3, e4 = uvw + 2 * e2 * q + 4 * q**3, (2 * uvw + e2 * q + 3 * q**3) * q
    return 6 * total + scale * _series(e2, e3, e4, uvw * q * q) / (mean * np.sqrt(mean))


def _rg_slope(x, y, z):
    """The derivative of R_G in x."""
    return 0.25 * (sp.elliprf(x, y, z) - x * sp.elliprd(y, z, x) / 3)


def _rc_slope(x, y, f):
    """The derivative of R_C in x; for y < 0, where R_D is not defined, from R_C itself."""
    valued = np.real(y) < 0
    positive = np.where(valued, 1.0, y)
    other = np.where(valued, (f - 1 / np.sqrt(x)) / (2 * np.where(valued, y - x, 1.0)), 0.0)
    return np.where(valued, other, sp.elliprd(positive, positive, x) / -6)


def _rc_slope_in_y(x, y, f):
    """The derivative of R_C in y; for y < 0 by Euler's theorem, R_C being of degree -1/2."""
    valued = np.real(y) < 0
    positive = np.where(valued, 1.0, y)
    other = -(0.5 * f + x * _rc_slope(x, y, f)) / np.where(valued, y, 1.0)
    return np.where(valued, other, sp.elliprd(x, positive, positive) / -3)


def _mean_slope(a, b, mean):
    """The derivative in a of the arithmetic-geometric mean pi / (2 R_F(0, a**2, b**2))."""
    return 2 / (3 * math.pi) * mean * mean * np.abs(a) * sp.elliprd(0, b * b, a * a)


def _periods(phi):
    """Return phi less the nearest multiple of pi, and twice the multiple."""
    n = np.rint(phi / math.pi)
    return phi - n * math.pi, 2 * n


def _squares(s, c, m):
    """cos(phi)**2 and 1 - m sin(phi)**2, the latter as a sum that does not cancel for m <= 1."""
    return c * c, c * c + (1 - m) * s * s


def _first_in_parameter(phi, m):
    """The derivative in m of the incomplete integral of the first kind."""
    r, periods = _periods(phi)
    s, c = np.sin(r), np.cos(r)
    return _first_from(s, *_squares(s, c, m), periods, m)


def _first_from(s, c2, d2, periods, m):
    part = s**3 / 6 * sp.elliprd(c2, 1, d2)
    return part + _whole(periods, m, lambda m: sp.elliprd(0, 1, 1 - m) / 6)


def _second_in_parameter(phi, m):
    """The derivative in m of the incomplete integral of the second kind."""
    r, periods = _periods(phi)
    s, c = np.sin(r), np.cos(r)
    c2, d2 = _squares(s, c, m)
    part = s**3 / -6 * sp.elliprd(c2, d2, 1)
    return part + _whole(periods, m, lambda m: sp.elliprd(0, 1 - m, 1) / -6)


def _whole(periods, m, slope):
    """periods * slope(m), and 0 for none: the slope at m = 1 is infinite."""
    none = periods == 0
    return np.where(none, 0.0, periods * slope(np.where(none, 0.5, m)))


SMOOTH = {
    "elliprf": (
        lambda x, y, z, f: sp.elliprd(y, z, x) / -6,
        lambda x, y, z, f: sp.elliprd(z, x, y) / -6,
        lambda x, y, z, f: sp.elliprd(x, y, z) / -6,
    ),
    "elliprc": (_rc_slope, _rc_slope_in_y),
    "elliprd": tuple(through(_duplicated_rd, place) for place in range(3)),
    "elliprj": tuple(through(_duplicated_rj, place) for place in range(4)),
    "elliprg": (
        lambda x, y, z, g: _rg_slope(x, y, z),
        lambda x, y, z, g: _rg_slope(y, z, x),
        lambda x, y, z, g: _rg_slope(z, x, y),
    ),
    "agm": (lambda a, b, y: _mean_slope(a, b, y), lambda a, b, y: _mean_slope(b, a, y)),
    "ellipk": (lambda m, y: sp.elliprd(0, 1, 1 - m) / 6,),
    "ellipkm1": (lambda p, y: sp.elliprd(0, 1, p) / -6,),
    "ellipe": (lambda m, y: sp.elliprd(0, 1 - m, 1) / -6,),
    "ellipkinc": (
        lambda phi, m, y: 1 / np.sqrt(_squares(np.sin(phi), np.cos(phi), m)[1]),
        lambda phi, m, y: _first_in_parameter(phi, m),
    ),
    "ellipeinc": (
        lambda phi, m, y: np.sqrt(_squares(np.sin(phi), np.cos(phi), m)[1]),
        lambda phi, m, y: _second_in_parameter(phi, m),
    ),
}

# --- Jacobi's functions: sn = sin(ph), cn = cos(ph), dn = sqrt(1 - m sn**2), u = F(ph, m)


def _amplitude_in_parameter(u, m, ph):
    # From sn, cn and dn, which are exact where ph is near an odd multiple of pi/2 and m near 1.
    _, periods = _periods(ph)
    sign = 1 - periods % 4
    cn, dn = _cn(u, m), _dn(u, m)
    return -dn * _first_from(sign * _sn(u, m), cn * cn, dn * dn, periods, m)


def _dn_in_parameter(u, m, dn):
    sn, moved = _sn(u, m), _amplitude_in_parameter(u, m, _ph(u, m))
    return -0.5 * sn * (sn + 2 * m * _cn(u, m) * moved) / dn


_sn: Primitive = component(
    "ellipj", 0,
    lambda u, m, y: _cn(u, m) * _dn(u, m),
    lambda u, m, y: _cn(u, m) * _amplitude_in_parameter(u, m, _ph(u, m)),
)  # fmt: skip
_cn: Primitive = component(
    "ellipj", 1,
    lambda u, m, y: -_sn(u, m) * _dn(u, m),
    lambda u, m, y: -_sn(u, m) * _amplitude_in_parameter(u, m, _ph(u, m)),
)  # fmt: skip
_dn: Primitive = component(
    "ellipj", 2,
    lambda u, m, y: -m * _sn(u, m) * _cn(u, m),
    _dn_in_parameter,
)  # fmt: skip
_ph: Primitive = component("ellipj", 3, lambda u, m, y: _dn(u, m), _amplitude_in_parameter)

WHOLE = {"ellipj": together(_sn, _cn, _dn, _ph)}
