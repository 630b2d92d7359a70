"""Solutions of second-order equations that scipy returns with their slopes: Mathieu, Weber.

The slope comes from scipy and its own derivative from the equation, so every order follows.
Source: NIST Digital Library of Mathematical Functions, chapters 12 and 28.
"""

import math
from collections.abc import Callable

import numpy as np

from .. import special as sp
from ..primitive import Primitive
from .rules import component, together

DEGREE = math.pi / 180


def _mathieu(name: str, characteristic: str, angular: bool) -> Callable:
    """w'' = -(a - 2q cos 2x) w with x in degrees, or the modified w'' = (a - 2q cosh 2x) w."""

    def curvature(m, q, x, y):
        a = getattr(sp, characteristic)(m, q)
        if angular:
            return -DEGREE * (a - 2 * q * np.cos(2 * DEGREE * x)) * function(m, q, x)
        return (a - 2 * q * np.cosh(2 * x)) * function(m, q, x)

    def first(m, q, x, y):
        return DEGREE * slope(m, q, x) if angular else slope(m, q, x)

    known = ("m, the order", "q, the parameter")
    function: Primitive = component(name, 0, *known, first)
    slope: Primitive = component(name, 1, *known, curvature)
    return together(function, slope)


def _weber(name: str, order: str, potential: Callable) -> Callable:
    """w'' = potential(order, x) w."""
    function: Primitive = component(name, 0, order, lambda v, x, y: slope(v, x))
    slope: Primitive = component(name, 1, order, lambda v, x, y: potential(v, x) * function(v, x))
    return together(function, slope)


WHOLE = {
    "mathieu_cem": _mathieu("mathieu_cem", "mathieu_a", True),
    "mathieu_sem": _mathieu("mathieu_sem", "mathieu_b", True),
    "mathieu_modcem1": _mathieu("mathieu_modcem1", "mathieu_a", False),
    "mathieu_modcem2": _mathieu("mathieu_modcem2", "mathieu_a", False),
    "mathieu_modsem1": _mathieu("mathieu_modsem1", "mathieu_b", False),
    "mathieu_modsem2": _mathieu("mathieu_modsem2", "mathieu_b", False),
    "pbdv": _weber("pbdv", "v, the order", lambda v, x: 0.25 * x * x - v - 0.5),
    "pbvv": _weber("pbvv", "v, the order", lambda v, x: 0.25 * x * x - v - 0.5),
    "pbwa": _weber("pbwa", "a, the parameter", lambda a, x: a - 0.25 * x * x),
}
