"""The error function, the normal distribution, and integrals of Gauss, Fresnel, Dawson and Voigt.

Source: NIST Digital Library of Mathematical Functions, chapter 7.
"""

import math

import numpy as np

from .. import special as sp
from .rules import component, is_complex, through, together

TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)
ROOT_TWO_PI = math.sqrt(2 * math.pi)
FAR = 10.0  # from here on fourteen terms of an asymptotic series are exact in double precision


def _tail(u):
    """The sum over n >= 1 of (2n-1)!! u**n, to fourteen terms."""
    total = 0.0
    for n in reversed(range(14)):
        total = (2 * n + 1) * u * (1 + total)
    return total


def _far(z, mask):
    return np.where(mask, z, FAR)


def _erfcx_slope(x, y):
    """2 x y - 2/sqrt(pi), which cancels to the right, where the series takes over."""
    far = np.real(x) > FAR
    near = 2 * np.where(far, 0.0, x) * y - TWO_OVER_ROOT_PI
    return np.where(far, TWO_OVER_ROOT_PI * _tail(-0.5 / _far(x, far) ** 2), near)


def _dawsn_slope(x, y):
    """1 - 2 x y; off the real axis the exponential keeps it from cancelling."""
    near = 1 - 2 * x * y
    if is_complex(x):
        return near
    far = np.abs(x) > FAR
    near = 1 - 2 * np.where(far, 0.0, x) * y
    return np.where(far, -_tail(0.5 / _far(x, far) ** 2), near)


def _wofz_slope(z, y):
    far = (np.imag(z) >= 0) & (np.abs(z) > FAR)
    near = 1j * TWO_OVER_ROOT_PI - 2 * np.where(far, 0.0, z) * y
    return np.where(far, -1j * TWO_OVER_ROOT_PI * _tail(0.5 / _far(z, far) ** 2), near)


def normal_density(x):
    return np.exp(-0.5 * x * x) / ROOT_TWO_PI


def _log_ndtr_slope(x, y):
    """The density over the distribution; by erfcx left of 0, where both vanish."""
    if is_complex(x):
        return np.exp(-0.5 * x * x - y) / ROOT_TWO_PI
    right = x > 0
    r = np.where(right, x, 0.0)
    s = np.where(right, 0.0, x)
    scaled = math.sqrt(2 / math.pi) / sp.erfcx(s * -math.sqrt(0.5))
    return np.where(right, normal_density(r) / sp.ndtr(r), scaled)


def _voigt(x, sigma, gamma):
    z = (x + 1j * gamma) / (sigma * math.sqrt(2))
    return np.real(sp.wofz(z)) / (sigma * ROOT_TWO_PI)


SMOOTH = {
    "erf": (lambda x, y: TWO_OVER_ROOT_PI * np.exp(-x * x),),
    "erfc": (lambda x, y: -TWO_OVER_ROOT_PI * np.exp(-x * x),),
    "erfcx": (_erfcx_slope,),
    "erfi": (lambda x, y: TWO_OVER_ROOT_PI * np.exp(x * x),),
    "erfinv": (lambda x, y: np.exp(y * y) / TWO_OVER_ROOT_PI,),
    "erfcinv": (lambda x, y: -np.exp(y * y) / TWO_OVER_ROOT_PI,),
    "dawsn": (_dawsn_slope,),
    "wofz": (_wofz_slope,),
    "voigt_profile": tuple(through(_voigt, place) for place in range(3)),
    "ndtr": (lambda x, y: normal_density(x),),
    "log_ndtr": (_log_ndtr_slope,),
    "ndtri": (lambda p, y: ROOT_TWO_PI * np.exp(0.5 * y * y),),
    "ndtri_exp": (lambda x, y: 1 / _log_ndtr_slope(y, None),),
    "owens_t": (
        lambda h, a, y: np.exp(-0.5 * h * h) * sp.erf(a * h * math.sqrt(0.5)) / -(2 * ROOT_TWO_PI),
        lambda h, a, y: np.exp(-0.5 * h * h * (1 + a * a)) / (2 * math.pi * (1 + a * a)),
    ),
    "nrdtrimn": (
        lambda p, std, x, y: -std * ROOT_TWO_PI * np.exp(0.5 * sp.ndtri(p) ** 2),
        lambda p, std, x, y: -sp.ndtri(p),
        lambda p, std, x, y: 1,
    ),
    "nrdtrisd": (
        lambda mn, p, x, y: -1 / sp.ndtri(p),
        lambda mn, p, x, y: -y / sp.ndtri(p) * ROOT_TWO_PI * np.exp(0.5 * sp.ndtri(p) ** 2),
        lambda mn, p, x, y: 1 / sp.ndtri(p),
    ),
}


def _fresnel_sign(sign):
    """The results of modfresnelp and modfresnelm: F = integral from x of exp(+-i t**2), and K."""
    name = "modfresnelp" if sign > 0 else "modfresnelm"
    turn = complex(math.cos(math.pi / 4), -sign * math.sin(math.pi / 4)) / math.sqrt(math.pi)
    return together(
        component(name, 0, lambda x, y: -np.exp(sign * 1j * x * x)),
        component(name, 1, lambda x, y: -2j * sign * x * y - turn),
    )


WHOLE = {
    "fresnel": together(
        component("fresnel", 0, lambda z, y: np.sin(math.pi / 2 * z * z)),
        component("fresnel", 1, lambda z, y: np.cos(math.pi / 2 * z * z)),
    ),
    "modfresnelp": _fresnel_sign(1),
    "modfresnelm": _fresnel_sign(-1),
}
