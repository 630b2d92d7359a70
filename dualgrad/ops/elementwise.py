"""Functions applied entry by entry: each row is the function and its partial derivatives.

Constants in partials are Python numbers, so that float32 stays float32. Conventions at points
without a derivative are listed in docs/conventions.md.
"""

import math
from collections.abc import Callable
from importlib import import_module

import numpy as np

from ..dual import primal_of
from ..kernels import elementwise as kernels
from ..operations import implements
from ..partials import Guarded, Share
from ..primitive import (
    align,
    check_levels,
    constant,
    custom,
    elementwise,
    unbroadcast,
)
from .lengths import SQUARES, Squaring, length, square_of, unit
from .results import array_beside, deliver

LN2, LN10 = math.log(2), math.log(10)
DEGREE = math.pi / 180


def _steep(slope):
    """A slope that may be infinite where the value is finite: there a tangent of 0 stays 0."""
    infinite = np.isinf(slope)
    return Guarded(slope, infinite) if np.count_nonzero(infinite) else slope


def _inverse(b):
    """1 / b, as NumPy has it where b is a Python zero: infinite, of complex numbers NaN."""
    if isinstance(b, (int, float, complex)) and b == 0:
        return complex(math.nan, math.nan) if type(b) is complex else math.copysign(math.inf, b)
    return 1 / b


def _power_in_base(a, b, y):
    if type(b) in (int, float) and b >= 1:
        return 2 * a if b == 2 else b * a ** (b - 1)
    # The added 1 where b is 0 keeps 0 * 0**-1, a NaN, out of x**0 and of high orders of x**2.
    slope = b * a ** (b - 1 + (b == 0))
    if slope.dtype.kind == "c":  # NumPy's 0j**-0.5 is NaN, where 0**-0.5 is infinite
        slope = np.where((a == 0) & np.isnan(slope), math.inf, slope)
    return _steep(slope)


def _power_in_exponent(a, b, y):
    # 0**b does not move with b > 0. A negative base has no slope in b: NaN, where b moves at all.
    base = np.where(a == 0, 1, a)
    if base.dtype != y.dtype:  # the logarithm of an int8 is a float16
        base = np.astype(base, y.dtype)
    slope = y * np.log(base + 0j if y.dtype.kind == "c" else base)
    return Guarded(slope, ~np.isfinite(slope))


def _ties(*masks):
    """The partial of max(a, b) and its like: one where it is taken, half at a tie."""
    taken, tied = masks
    return Share(taken | tied, 1 + tied)


SMOOTH: dict[Callable, tuple[Callable, ...]] = {
    # --- arithmetic
    np.add: (lambda a, b, y: 1, lambda a, b, y: 1),
    np.subtract: (lambda a, b, y: 1, lambda a, b, y: -1),
    np.multiply: (lambda a, b, y: b, lambda a, b, y: a),
    np.divide: (lambda a, b, y: _inverse(b), lambda a, b, y: -y / b),
    np.negative: (lambda x, y: -1,),
    np.positive: (lambda x, y: 1,),
    np.reciprocal: (lambda x, y: -y * y,),
    np.square: (lambda x, y: 2 * x,),
    np.remainder: (lambda a, b, y: 1, lambda a, b, y: -np.floor_divide(a, b)),
    np.fmod: (lambda a, b, y: 1, lambda a, b, y: -np.rint((a - y) / b)),
    # --- powers, exponentials, logarithms
    np.power: (_power_in_base, _power_in_exponent),
    np.float_power: (_power_in_base, _power_in_exponent),
    np.sqrt: (lambda x, y: _steep(0.5 / y),),
    np.cbrt: (lambda x, y: _steep(1 / (3 * y * y)),),
    np.exp: (lambda x, y: y,),
    np.exp2: (lambda x, y: LN2 * y,),
    np.expm1: (lambda x, y: np.exp(x),),
    np.log: (lambda x, y: 1 / x,),
    np.log2: (lambda x, y: 1 / (LN2 * x),),
    np.log10: (lambda x, y: 1 / (LN10 * x),),
    np.log1p: (lambda x, y: 1 / (1 + x),),
    np.logaddexp: (lambda a, b, y: np.exp(_below(a, y)), lambda a, b, y: np.exp(_below(b, y))),
    np.logaddexp2: (lambda a, b, y: np.exp2(_below(a, y)), lambda a, b, y: np.exp2(_below(b, y))),
    # --- trigonometric and hyperbolic
    np.sin: (lambda x, y: np.cos(x),),
    np.cos: (lambda x, y: -np.sin(x),),
    np.tan: (lambda x, y: 1 + y * y,),
    np.arcsin: (lambda x, y: _steep(1 / _leg(x)),),
    np.arccos: (lambda x, y: _steep(-1 / _leg(x)),),
    np.arctan: (lambda x, y: 1 / (1 + x * x),),
    np.arctan2: (
        lambda a, b, y: _over_square(b, np.hypot(a, b)),
        lambda a, b, y: -_over_square(a, np.hypot(a, b)),
    ),
    np.sinh: (lambda x, y: np.cosh(x),),
    np.cosh: (lambda x, y: np.sinh(x),),
    np.tanh: (lambda x, y: 1 - y * y,),
    np.arcsinh: (lambda x, y: 1 / np.sqrt(x * x - -1),),
    np.arccosh: (lambda x, y: _steep(1 / (np.sqrt(x - 1) * np.sqrt(x - -1))),),
    np.arctanh: (lambda x, y: 1 / ((1 - x) * (1 + x)),),
    np.deg2rad: (lambda x, y: DEGREE,),
    np.radians: (lambda x, y: DEGREE,),
    np.rad2deg: (lambda x, y: 1 / DEGREE,),
    np.degrees: (lambda x, y: 1 / DEGREE,),
    # --- branches: select one argument, share at ties
    np.maximum: (
        lambda a, b, y: _ties((a > b) | np.isnan(a), a == b),  # a NaN is taken
        lambda a, b, y: _ties((b > a) | np.isnan(b), a == b),
    ),
    np.minimum: (
        lambda a, b, y: _ties((a < b) | np.isnan(a), a == b),
        lambda a, b, y: _ties((b < a) | np.isnan(b), a == b),
    ),
    np.fmax: (
        lambda a, b, y: _ties((a > b) | np.isnan(b), a == b),
        lambda a, b, y: _ties((b > a) | np.isnan(a), a == b),
    ),
    np.fmin: (
        lambda a, b, y: _ties((a < b) | np.isnan(b), a == b),
        lambda a, b, y: _ties((b < a) | np.isnan(a), a == b),
    ),
    np.heaviside: (
        lambda x, h, y: np.zeros_like(primal_of(x), bool),
        lambda x, h, y: x == 0,
    ),
    np.copysign: (
        lambda a, b, y: np.sign(a) * np.copysign(1.0, primal_of(b)),
        lambda a, b, y: np.zeros_like(primal_of(b), bool),
    ),
    np.nextafter: (
        lambda a, b, y: 1,  # a and its neighbour move together
        lambda a, b, y: np.zeros_like(primal_of(b), bool),
    ),
}


def _below(x, y):
    """x - y, where y is the logarithm of a sum of exponentials; x where y is -inf."""
    return x - np.where(y == -math.inf, 0, y)


def _leg(x):
    """sqrt(1 - x**2), accurate near 1; complex x keep the side of a cut: x - -1 has x's zeros."""
    return np.sqrt(-(x - 1)) * np.sqrt(x - -1)


def _over_square(x, length):
    """x / length**2 without overflow, and 0 where the length is 0."""
    return unit(unit(x, length), length)


for _function, _partials in SMOOTH.items():
    _primitive = elementwise(_function, *_partials, fused=kernels.fused(_function.__name__))
    if _function in SQUARES:
        _primitive = Squaring.of(_primitive, SQUARES[_function])
    implements(_function, family="elementwise")(_primitive)

PIECEWISE_CONSTANT = """
    floor ceil rint trunc floor_divide around round spacing
    greater greater_equal less less_equal equal not_equal isclose allclose array_equal array_equiv
    isfinite isinf isnan isneginf isposinf signbit
    logical_and logical_or logical_xor logical_not all any iscomplex isreal iscomplexobj isrealobj
""".split()
# These take integers or dates alone: given a dual, they raise NumPy's TypeError.
INTEGERS_ALONE = """
    bitwise_and bitwise_or bitwise_xor invert left_shift right_shift bitwise_count gcd lcm isnat
""".split()

for _name in PIECEWISE_CONSTANT + INTEGERS_ALONE:
    implements(getattr(np, _name), differentiable=False)(constant(getattr(np, _name)))

implements(np.fix, differentiable=False)(constant(np.trunc))  # NumPy deprecates the former

# --- functions that need a word more than a row

_real_abs = elementwise(np.absolute, lambda x, y: np.sign(x), fused=kernels.fused("absolute"))
_hypot = elementwise(
    np.hypot,
    lambda a, b, y: unit(a, y),
    lambda a, b, y: unit(b, y),
    fused=kernels.fused("hypot"),
)
_where = elementwise(
    np.where,
    None,
    lambda c, a, b, y: c,
    lambda c, a, b, y: ~c,
    fused=kernels.fused("where"),
)
_clip = elementwise(
    np.clip,
    lambda x, low, high, y: ~((x < low) | (x > high)),  # an edge keeps slope 1, and so does NaN
    lambda x, low, high, y: (x < low) & (low <= high),
    lambda x, low, high, y: (x > high) | (high < low),
    fused=kernels.fused("clip"),
)


def _complex_abs_push(unit, tangents):
    (t,) = tangents
    return np.real(np.conj(unit) * t)


# |z| moves by Re(conj(z) dz) / |z|, and by 0 at z = 0.
_complex_abs = custom(
    np.absolute,
    lambda primals, active, y: unit(primals[0], y),
    _complex_abs_push,
    lambda unit, ct: [unit * ct],
)


@implements(np.absolute)
def absolute(x):
    """|x|, with slope 0 at 0; for complex x the slope is that of the length."""
    y = (_complex_abs if x.dtype.kind == "c" else _real_abs)(x)
    return length(y, lambda: square_of(x))


@implements(np.sign)
def sign(x):
    """The sign of a real x, a plain array as it does not move; of a complex x, x / |x|."""
    return unit(x, np.absolute(x)) if x.dtype.kind == "c" else constant(np.sign)(x)


@implements(np.fabs)
def fabs(x):
    return length(_real_abs(x), lambda: square_of(x))


@implements(np.hypot)
def hypot(a, b):
    """sqrt(a**2 + b**2), with slope 0 at (0, 0)."""
    return length(_hypot(a, b), lambda: a * a + b * b)


@implements(np.angle)
def angle(z, deg=False):
    """The argument of z: arctan2(imag, real)."""
    radians = np.arctan2(np.imag(z), np.real(z))
    return np.degrees(radians) if deg else radians


@implements(np.where)
def where(condition, x=None, y=None):
    """x where the condition holds, else y; tangents are selected the same way, never multiplied."""
    check_levels([condition], "np.where")
    condition = array_beside(primal_of(condition), x, y) != 0
    if x is None and y is None:
        return np.nonzero(condition)
    return _where(condition, x, y)


@implements(np.clip)
def clip(a, a_min=None, a_max=None, out=None, *, min=None, max=None):
    """a limited to [a_min, a_max]; at an edge the tangent passes (slope 1)."""
    low = a_min if min is None else min
    high = a_max if max is None else max
    y = _clip(a, -math.inf if low is None else low, math.inf if high is None else high)
    return deliver(y, out)


@implements(import_module("numpy._core.umath").clip)
def clip_ufunc(a, low, high):
    """What ndarray's own method calls where a limit is a dual."""
    return _clip(a, low, high)


@implements(np.nan_to_num)
def nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None):
    """x with numbers for NaN and infinities, which do not move; copy=False writes them into x."""
    if x.dtype.kind == "c":
        real, imag = (nan_to_num(part, True, nan, posinf, neginf) for part in (x.real, x.imag))
        y = real + 1j * imag
    else:
        y = np.where(np.isfinite(x), x, np.nan_to_num(primal_of(x), True, nan, posinf, neginf))
    return y if copy else deliver(y, x)


@implements(np.modf)
def modf(x):
    """The fractional part, which moves with x, and the integral part, which does not."""
    whole = np.trunc(primal_of(x))
    fraction = np.where(np.isinf(whole), 0, x - np.where(np.isinf(whole), 0, whole))
    return fraction, whole


@implements(np.divmod)
def divmod_(a, b):
    return np.floor_divide(a, b), np.remainder(a, b)


# x * 2**exponent: linear in x, by a function that over- and underflows only where the result does.
_ldexp = custom(
    np.ldexp,
    lambda primals, active, y: (primals[1], y.ndim, primals[0].shape),
    lambda residuals, tangents: np.ldexp(align(tangents[0], residuals[1]), residuals[0]),
    lambda residuals, ct: [unbroadcast(np.ldexp(ct, residuals[0]), residuals[2]), None],
)
_ldexp.kind = "elementwise"


@implements(np.ldexp)
def ldexp(x, exponent):
    """x * 2**exponent for an integer exponent."""
    return _ldexp(x, primal_of(exponent))


@implements(np.frexp)
def frexp(x):
    """The mantissa, which moves with x, and the exponent, a plain integer array."""
    exponent = np.frexp(primal_of(x))[1]
    return np.ldexp(x, -exponent), exponent
