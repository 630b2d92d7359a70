"""Derivatives of black boxes by finite differences, where asked for."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import tree
from .arguments import number
from .check import STEP, central_difference
from .dual import Array, DualTensor
from .errors import MissingRuleError, OptionError
from .primitive import Primitive


def finite_difference(f: Callable, *, step: float = STEP) -> Callable:
    """Return f with derivatives by central differences: for functions that cannot take duals.

    f gets plain arrays (a call of compiled code, of a simulator, of a spline) and returns one
    array. It may be used inside any function that is differentiated, once: a second derivative of a
    difference would be noise, and raises.

    Args:
        f: smooth function of arrays, evaluated in double precision; arguments that are no floating
            numbers pass as they are, keyword arguments are constants.
        step: h of the five-point formula, relative to the largest entry of the arguments where that
            is above 1. The error is h^4 / 30 times the fifth derivative, plus rounding of about
            eps / h: 1e-12 of f's own scale for a smooth f in double precision. A function that is
            accurate to 1e-8 wants step=0.05 or so.

    A tangent costs 4 evaluations of f; a cotangent (vjp, mode="reverse") 4 for each entry of the
    arguments.

    Raises:
        MissingRuleError: at the second order (hessian, hvp, a nested transform), or in dg.jet.

    >>> from dualgrad import gradient
    >>> import math
    >>> volume = finite_difference(lambda r: np.asarray(4 / 3 * math.pi * float(r) ** 3))
    >>> bool(abs(gradient(lambda r: 2 * volume(r))(1.0) - 8 * math.pi) < 1e-9)
    True
    """
    if not callable(f) or not step > 0:
        raise OptionError(f"finite_difference: f={f!r}, step={step}; give a function, and a step.")
    name = getattr(f, "__name__", "function")

    def value(*primals, **params):
        y = number(f(*(_plain(x) for x in primals), **params), name)
        return y if y.dtype.kind in "fc" else y.astype(float)

    def residuals(primals, active, y, **params):
        if any(type(x) is DualTensor for x in primals):
            raise MissingRuleError(
                f"{name} has a derivative by finite differences, which has none of its own: "
                f"differences of differences would be noise. Declare a rule with dg.custom_jvp for "
                f"second derivatives, or pass dg.stop_gradient(x) where they are not wanted."
            )
        return [_plain(x) for x in primals], y

    def along(primals, tangents, y, params):
        moving = [i for i, t in enumerate(tangents) if t is not None]

        def at(*moved):
            args = list(primals)
            for i, x in zip(moving, moved, strict=True):
                args[i] = x
            return f(*args, **params)

        chosen = tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving)
        return np.asarray(central_difference(at, *chosen, step=step)).reshape(y.shape)

    def push(residuals, tangents, **params):
        primals, y = residuals
        if any(type(t) is DualTensor or not hasattr(t, "ndim") for t in tangents if t is not None):
            raise MissingRuleError(
                f"{name} has a derivative by finite differences, of the first order and along "
                f"plain directions alone. Declare a rule with dg.custom_jvp."
            )
        k = next(len(t) for t in tangents if t is not None)
        rows = [[None if t is None else t[i] for t in tangents] for i in range(k)]
        return np.stack([along(primals, row, y, params) for row in rows])

    def pull(residuals, ct, **params):
        primals, y = residuals
        cts: list[Any] = []
        for i, x in enumerate(primals):
            cts.append(
                _pulled(x, ct, lambda v, i=i: along(primals, _only(primals, i, v), y, params))
            )
        return cts

    primitive = Primitive(name, value, residuals, push, pull)
    return functools.wraps(f)(lambda *args, **params: primitive(*args, **params))


def _plain(x: Any) -> Any:
    """Return an argument as the black box gets it: an array that it may keep or write."""
    return np.array(x) if isinstance(x, np.ndarray) else x


def _only(primals: list, place: int, v: Array) -> list:
    return [v if i == place else None for i in range(len(primals))]


def _pulled(x: Any, ct: Array, slope: Callable) -> Any:
    """Return the cotangents J' ct of one argument, from J's columns; None where it is no number."""
    if not tree.is_floating(x):
        return None
    x = np.asarray(x)
    parts = (1.0, 1j) if x.dtype.kind == "c" else (1.0,)
    out = np.zeros((len(ct), *x.shape), x.dtype)
    for index in np.ndindex(*x.shape):
        for unit in parts:
            v = np.zeros(x.shape, x.dtype)
            v[index] = unit
            axes = tuple(range(1, ct.ndim))
            out[(slice(None), *index)] += unit * np.sum(np.real(np.conj(slope(v)) * ct), axis=axes)
    return out
