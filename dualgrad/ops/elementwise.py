"""Functions applied entry by entry: each row is the function and its partial derivatives.

Constants in partials are Python numbers, so that float32 stays float32. Conventions at points
without a derivative are listed in docs/conventions.md.
"""

import math
from collections.abc import Callable

import numpy as np

from ..dual import missing_rule, primal_of
from ..kernels import elementwise as kernels
from ..operations import implements
from ..primitive import Guarded, Share, check_levels, constant, custom, elementwise

LN2, LN10 = math.log(2), math.log(10)
DEGREE = math.pi / 180


def _power_in_base(a, b, y):
    # The added 1 where b is 0 keeps 0 * 0**-1, a NaN, out of x**0 and of high orders of x**2.
    return b * a ** (b - 1 + (b == 0))


def _power_in_exponent(a, b, y):
    # 0**b does not move with b > 0. A negative base has no slope in b: NaN, where b moves at all.
    slope = y * np.log(np.where(a == 0, 1, a))
    return Guarded(slope, np.isnan(slope))


def _ties(*masks):
    """The partial of max(a, b) and its like: one where it is taken, half at a tie."""
    taken, tied = masks
    return Share(taken | tied, 1 + tied)


SMOOTH: dict[Callable, tuple[Callable, ...]] = {
    # --- arithmetic
    np.add: (lambda a, b, y: 1, lambda a, b, y: 1),
    np.subtract: (lambda a, b, y: 1, lambda a, b, y: -1),
    np.multiply: (lambda a, b, y: b, lambda a, b, y: a),
    np.divide: (lambda a, b, y: 1 / b, lambda a, b, y: -y / b),
    np.negative: (lambda x, y: -1,),
    np.positive: (lambda x, y: 1,),
    np.reciprocal: (lambda x, y: -y * y,),
    np.square: (lambda x, y: 2 * x,),
    np.remainder: (lambda a, b, y: 1, lambda a, b, y: -np.floor_divide(a, b)),
    np.fmod: (lambda a, b, y: 1, lambda a, b, y: -np.rint((a - y) / b)),
    # --- powers, exponentials, logarithms
    np.power: (_power_in_base, _power_in_exponent),
    np.float_power: (_power_in_base, _power_in_exponent),
    np.sqrt: (lambda x, y: 0.5 / y,),
    np.cbrt: (lambda x, y: 1 / (3 * y * y),),
    np.exp: (lambda x, y: y,),
    np.exp2: (lambda x, y: LN2 * y,),
    np.expm1: (lambda x, y: y + 1,),
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
    np.arcsin: (lambda x, y: 1 / np.sqrt(1 - x * x),),
    np.arccos: (lambda x, y: -1 / np.sqrt(1 - x * x),),
    np.arctan: (lambda x, y: 1 / (1 + x * x),),
    np.arctan2: (
        lambda a, b, y: b / (a * a + b * b),
        lambda a, b, y: -a / (a * a + b * b),
    ),
    np.hypot: (lambda a, b, y: _unit(a, y), lambda a, b, y: _unit(b, y)),
    np.sinh: (lambda x, y: np.cosh(x),),
    np.cosh: (lambda x, y: np.sinh(x),),
    np.tanh: (lambda x, y: 1 - y * y,),
    np.arcsinh: (lambda x, y: 1 / np.sqrt(x * x + 1),),
    np.arccosh: (lambda x, y: 1 / (np.sqrt(x - 1) * np.sqrt(x + 1)),),  # in the complex plane too
    np.arctanh: (lambda x, y: 1 / (1 - x * x),),
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
}


def _below(x, y):
    """x - y, where y is the logarithm of a sum of exponentials; x where y is -inf."""
    return x - np.where(y == -math.inf, 0, y)


def _unit(x, y):
    """x / y, and 0 where y, a norm, is 0."""
    return np.where(y == 0, 0, x / np.where(y == 0, 1, y))


FUSED: dict[Callable, Callable] = {  # value and tangents of large arrays by one kernel
    np.exp: kernels.exp,
    np.tanh: kernels.tanh,
    np.log: kernels.log,
    np.multiply: kernels.multiply,
}

for _function, _partials in SMOOTH.items():
    _primitive = elementwise(_function, *_partials, fused=FUSED.get(_function))
    implements(_function, family="elementwise")(_primitive)

PIECEWISE_CONSTANT = """
    floor ceil rint trunc floor_divide around round spacing
    greater greater_equal less less_equal equal not_equal isclose allclose array_equal array_equiv
    isfinite isinf isnan isneginf isposinf signbit
    logical_and logical_or logical_xor logical_not all any iscomplex isreal iscomplexobj isrealobj
""".split()

for _name in PIECEWISE_CONSTANT:
    implements(getattr(np, _name), differentiable=False)(constant(getattr(np, _name)))

implements(np.fix, differentiable=False)(constant(np.trunc))  # NumPy deprecates the former

# --- functions that need a word more than a row

_real_abs = elementwise(np.absolute, lambda x, y: np.sign(x))
_where = elementwise(np.where, None, lambda c, a, b, y: c, lambda c, a, b, y: ~c)
_clip = elementwise(
    np.clip,
    lambda x, low, high, y: ~((x < low) | (x > high)),  # an edge keeps slope 1, and so does NaN
    lambda x, low, high, y: (x < low) & (low <= high),
    lambda x, low, high, y: (x > high) | (high < low),
)


def _complex_abs_push(unit, tangents):
    (t,) = tangents
    return np.real(np.conj(unit) * t)


# |z| moves by Re(conj(z) dz) / |z|, and by 0 at z = 0.
_complex_abs = custom(
    np.absolute,
    lambda primals, active, y: _unit(primals[0], y),
    _complex_abs_push,
    lambda unit, ct: [unit * ct],
)


@implements(np.absolute)
def absolute(x):
    """|x|, with slope 0 at 0; for complex x the slope is that of the length."""
    return (_complex_abs if x.dtype.kind == "c" else _real_abs)(x)


@implements(np.sign)
def sign(x):
    """The sign of a real x, a plain array as it does not move; of a complex x, x / |x|."""
    return _unit(x, np.absolute(x)) if x.dtype.kind == "c" else constant(np.sign)(x)


@implements(np.fabs)
def fabs(x):
    return _real_abs(x)


@implements(np.angle)
def angle(z, deg=False):
    """The argument of z: arctan2(imag, real)."""
    radians = np.arctan2(np.imag(z), np.real(z))
    return np.degrees(radians) if deg else radians


@implements(np.where)
def where(condition, x=None, y=None):
    """x where the condition holds, else y; tangents are selected the same way, never multiplied."""
    check_levels([condition], "np.where")
    condition = np.asarray(primal_of(condition)) != 0
    if x is None and y is None:
        return np.nonzero(condition)
    return _where(condition, x, y)


@implements(np.clip)
def clip(a, a_min=None, a_max=None, *, min=None, max=None):
    """a limited to [a_min, a_max]; at an edge the tangent passes (slope 1)."""
    low = a_min if min is None else min
    high = a_max if max is None else max
    return _clip(a, -math.inf if low is None else low, math.inf if high is None else high)


@implements(np.nan_to_num)
def nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None):
    """x with numbers for NaN and infinities, which do not move."""
    if not copy:
        raise missing_rule("np.nan_to_num", (x,), {}, " for copy=False")
    return np.where(np.isfinite(x), x, np.nan_to_num(primal_of(x), True, nan, posinf, neginf))


@implements(np.modf)
def modf(x):
    """The fractional part, which moves with x, and the integral part, which does not."""
    whole = np.trunc(primal_of(x))
    return x - whole, whole


@implements(np.divmod)
def divmod_(a, b):
    return np.floor_divide(a, b), np.remainder(a, b)
