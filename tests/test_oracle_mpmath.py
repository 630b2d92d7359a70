"""Differentiable real ufuncs against mpmath: value, first and second derivatives to 1e-10."""

import numpy as np
import pytest
from mpmath import mp

import dualgrad as dg
from dualgrad.operations import OPERATIONS

UNARY = {  # what mpmath calls it, and where its argument is drawn
    "absolute": (abs, -3, -0.1), "fabs": (abs, 0.1, 3), "positive": (lambda x: +x, -3, 3),
    "negative": (lambda x: -x, -3, 3), "reciprocal": (lambda x: 1 / x, 0.1, 3),
    "square": (lambda x: x * x, -3, 3), "conjugate": (lambda x: x, -3, 3),
    "sqrt": (mp.sqrt, 0.01, 9), "cbrt": (mp.cbrt, 0.01, 9), "exp": (mp.exp, -30, 30),
    "exp2": (lambda x: mp.mpf(2) ** x, -30, 30), "expm1": (mp.expm1, -30, 30),
    "log": (mp.log, 0.01, 9), "log2": (lambda x: mp.log(x, 2), 0.01, 9),
    "log10": (mp.log10, 0.01, 9), "log1p": (mp.log1p, -0.9, 9),
    "sin": (mp.sin, -30, 30), "cos": (mp.cos, -30, 30), "tan": (mp.tan, -1.5, 1.5),
    "arcsin": (mp.asin, -0.999999, 0.999999), "arccos": (mp.acos, -0.999999, 0.999999),
    "arctan": (mp.atan, -30, 30), "sinh": (mp.sinh, -30, 30), "cosh": (mp.cosh, -30, 30),
    "tanh": (mp.tanh, -4, 4), "arcsinh": (mp.asinh, -30, 30),
    "arccosh": (mp.acosh, 1.0001, 30), "arctanh": (mp.atanh, -0.999999, 0.999999),
    "deg2rad": (mp.radians, -400, 400), "radians": (mp.radians, -400, 400),
    "rad2deg": (mp.degrees, -9, 9), "degrees": (mp.degrees, -9, 9),
    "modf": (lambda x: x - mp.floor(x), 2.1, 2.9), "frexp": (lambda x: x / 4, 2.1, 3.9),
}  # fmt: skip
BINARY = {  # the same, for two arguments
    "add": (lambda a, b: a + b, (-3, 3), (-3, 3)),
    "subtract": (lambda a, b: a - b, (-3, 3), (-3, 3)),
    "multiply": (lambda a, b: a * b, (-3, 3), (-3, 3)),
    "divide": (lambda a, b: a / b, (-3, 3), (0.1, 3)),
    "power": (mp.power, (0.1, 5), (-5, 5)), "float_power": (mp.power, (0.1, 5), (-5, 5)),
    "arctan2": (mp.atan2, (-9, 9), (0.1, 9)), "hypot": (mp.hypot, (-9, 9), (0.1, 9)),
    "logaddexp": (lambda a, b: mp.log(mp.exp(a) + mp.exp(b)), (-20, 20), (-20, 20)),
    "logaddexp2": (lambda a, b: mp.log(2**a + 2**b, 2), (-20, 20), (-20, 20)),
    "maximum": (max, (-3, 3), (-3, 3)), "minimum": (min, (-3, 3), (-3, 3)),
    "fmax": (max, (-3, 3), (-3, 3)), "fmin": (min, (-3, 3), (-3, 3)),
    "copysign": (lambda a, b: -a, (0.1, 3), (-3, -0.1)),
    "heaviside": (lambda a, b: mp.mpf(1), (0.1, 3), (-3, 3)),
    "nextafter": (lambda a, b: a + 0 * b, (-3, -1), (1, 3)),
    "remainder": (lambda a, b: a - 2 * b, (2.3, 2.9), (1, 1.09)),
    "fmod": (lambda a, b: a + 2 * b, (-2.9, -2.3), (1, 1.09)),
    "divmod": (lambda a, b: a - 2 * b, (2.3, 2.9), (1, 1.09)),
    "ldexp": (lambda a, b: a * 8, (-3, 3), None),
}  # fmt: skip
PARTS = {"modf": 0, "frexp": 0, "divmod": 1}  # of several results, the one that moves


def close(got, exact):
    # Where second derivatives cancel to nothing, what is lost is measured by the terms, near 1.
    assert abs(got - float(exact)) <= 1e-10 * max(abs(float(exact)), 1e-3), (got, exact)


def part(name):
    function = getattr(np, name)
    return (lambda *xs: function(*xs)[PARTS[name]]) if name in PARTS else function


def test_every_differentiable_real_ufunc_is_compared():
    linear_algebra = {"matmul", "vecdot", "matvec", "vecmat"}
    of_duals = {
        f.__name__ for f, o in OPERATIONS.items() if isinstance(f, np.ufunc) and o.differentiable
    }
    # sign moves for complex numbers alone; clip is compared in test_kinks.py
    assert of_duals - linear_algebra - {"sign", "clip"} == {*UNARY, *BINARY}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_argument(name):
    exact, low, high = UNARY[name]
    f = part(name)
    points = np.random.default_rng(len(name)).uniform(low, high, 5)
    with mp.workdps(40):
        for x in points.tolist():
            close(dg.jvp(f, (x,), (1.0,))[0], exact(mp.mpf(x)))
            for order, derivative in ((1, dg.derivative(f)), (2, dg.derivative(dg.derivative(f)))):
                close(derivative(x), mp.diff(exact, x, order))


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_arguments(name):
    exact, first, second = BINARY[name]
    generator, f = np.random.default_rng(len(name)), part(name)
    with mp.workdps(40):
        for _ in range(4):
            a = generator.uniform(*first)
            if second is None:
                close(dg.derivative(lambda a: f(a, 3))(a), 8)
                continue
            b = generator.uniform(*second)
            value, gradient = dg.value_and_gradient(lambda x: f(x[0], x[1]))(np.array([a, b]))
            close(value, exact(mp.mpf(a), mp.mpf(b)))
            hessian = dg.hessian(lambda x: f(x[0], x[1]))(np.array([a, b]))
            for got, orders in (
                (gradient[0], (1, 0)), (gradient[1], (0, 1)), (hessian[0, 0], (2, 0)),
                (hessian[0, 1], (1, 1)), (hessian[1, 0], (1, 1)), (hessian[1, 1], (0, 2)),
            ):  # fmt: skip
                close(got, mp.diff(exact, (a, b), orders))
