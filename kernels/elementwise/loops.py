"""The compiled loops of cpu.py: a function and its k tangents in one pass; imports numba.

exp takes x apart as n log(2) + r, with log(2) in two parts, and scales a polynomial of r by 2**n.
tanh is e / (e + 2), e = expm1(2 |x|), by the same reduction. log takes x apart as 2**n m, with m
from sqrt(1/2) to sqrt(2), and uses a polynomial of s = (m - 1) / (m + 1) = tanh(log(m) / 2). The
polynomials are near-minimax: interpolated at Chebyshev nodes, in 40 digits. No loop has fast-math
flags, for reassociated sums would undo the reductions; where an FMA may be used, `fma` says so.

Source: the reductions are those of Tang, ACM TOMS 15 (1989), without tables, and of fdlibm's
e_log.c, Sun Microsystems, 1993.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from ..dispatch import loop
from ..jit import jit

_DOUBLE = SimpleNamespace(
    real=np.float64,
    integer=np.int64,
    mantissa=52,
    bias=1023,
    shift=1.5 * 2.0**52,  # added and taken away again, it rounds to integers
    ln2=(0.6931471803691238, 1.9082149292705877e-10),
    range=(-746.0, 710.0),  # beyond which exp is 0 and inf
    one=22.0,  # from where tanh rounds to 1
    tiny=2.0**-1022,
    exp=(2.5100424157005067e-08, 2.7620138719733994e-07, 2.7557268378684192e-06)
    + (2.480152119021773e-05, 0.00019841269863105968, 0.0013888888917281794)
    + (0.008333333333330051, 0.04166666666662399, 0.16666666666666669, 0.5),
    log=(0.1461916613488797, 0.1533150161114533, 0.18182895750119193, 0.22222211043776857)
    + (0.2857142862653362, 0.3999999999989827, 0.666666666666667),
)
_SINGLE = SimpleNamespace(
    real=np.float32,
    integer=np.int32,
    mantissa=23,
    bias=127,
    shift=1.5 * 2.0**23,
    ln2=(0.69287109375, 0.00027608680994530943),
    range=(-104.0, 89.0),
    one=11.0,
    tiny=2.0**-126,
    exp=(0.0013926213466332444, 0.008363202971575855, 0.04166655443768594)
    + (0.16666576845993977, 0.5),
    log=(0.2958202356203656, 0.39988734820244165, 0.6666668515145278),
)


@intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once where the CPU does so at no cost."""

    def emit(context, builder, signature, arguments):
        kind = arguments[0].type
        name = f"llvm.fmuladd.{'f64' if isinstance(kind, ir.DoubleType) else 'f32'}"
        function = ir.FunctionType(kind, [kind] * 3)
        return builder.call(
            cgutils.get_or_insert_function(builder.module, function, name), arguments
        )

    return a(a, a, a), emit


@intrinsic
def bits_of(typing, x):
    """The bits of a number, as an integer of its size."""
    integer = types.int64 if x == types.float64 else types.int32
    return integer(x), lambda context, builder, signature, arguments: builder.bitcast(
        arguments[0], ir.IntType(integer.bitwidth)
    )


@intrinsic
def number_of(typing, bits):
    """The number that has these bits."""
    real, kind = (types.float64, ir.DoubleType()) if bits == types.int64 else (
        types.float32, ir.FloatType())  # fmt: skip
    return real(bits), lambda context, builder, signature, arguments: builder.bitcast(
        arguments[0], kind
    )


def _functions(c: SimpleNamespace) -> dict[str, Callable]:
    """Return exp, tanh and log of one number in the precision of the constants c."""
    real, integer = c.real, c.integer
    zero, half, one, two = map(real, (0, 0.5, 1, 2))
    inf, nan = real(math.inf), real(math.nan)
    shift, shift_bits = real(c.shift), real(c.shift).view(integer)
    per_ln2, high, low = real(1 / math.log(2)), real(c.ln2[0]), real(c.ln2[1])
    least, most, saturated = real(c.range[0]), real(c.range[1]), real(c.one)
    mantissa, bias = integer(c.mantissa), integer(c.bias)
    exp_poly, log_poly = tuple(map(real, c.exp)), tuple(map(real, c.log))
    # 2**mantissa makes normal numbers of all others; the bits of sqrt(1/2) cut mantissas there.
    tiny, up = real(c.tiny), real(2.0**c.mantissa)
    root = real(math.sqrt(0.5)).view(integer)
    once = integer(1)

    @jit(fastmath=False, forceinline=True)
    def polynomial(coefficients, x):
        total = coefficients[0]
        for i in range(1, len(coefficients)):
            total = fma(total, x, coefficients[i])
        return total

    @jit(fastmath=False, forceinline=True)
    def power_of_two(n):
        return number_of(integer(integer(n + bias) << mantissa))

    @jit(fastmath=False, forceinline=True)
    def reduced(x):
        """Return n and expm1(r), where x = n log(2) + r and n is whole."""
        shifted = fma(x, per_ln2, shift)
        n = shifted - shift
        r = fma(-n, low, fma(-n, high, x))
        return integer(bits_of(shifted) - shift_bits), fma(r * r, polynomial(exp_poly, r), r)

    def exp(x):
        x = most if x > most else x  # a NaN passes both
        x = least if x < least else x
        n, q = reduced(x)
        first = integer(n >> once)  # in two steps: 2**n alone may overflow, or be denormal
        return ((one + q) * power_of_two(first)) * power_of_two(integer(n - first))

    def tanh(x):
        size = abs(x)
        size = saturated if size > saturated else size
        n, q = reduced(two * size)
        power = power_of_two(n)
        e = fma(power, q, power - one)
        return math.copysign(e / (e + two), x)

    def log(x):
        small = x < tiny
        bits = bits_of(x * up if small else x)
        n = integer((bits - root) >> mantissa)
        f = number_of(integer(bits - integer(n << mantissa))) - one
        power = real(n) - (real(mantissa) if small else zero)
        s = f / (two + f)
        z = s * s
        square = half * f * f
        y = s * fma(z, polynomial(log_poly, z), square)
        y = fma(power, high, f - (square - fma(power, low, y)))
        y = x if x == inf else y
        return (-inf if x == zero else nan) if not x > zero else y

    return {"exp": exp, "tanh": tanh, "log": log}


_BY_TYPE = {types.float64: _functions(_DOUBLE), types.float32: _functions(_SINGLE)}


def _in_both(name: str) -> Callable:
    """Return a function that stands, in compiled code, for exp, tanh or log of its argument."""

    def stub(x: Any) -> Any:
        raise NotImplementedError

    options: Any = {"fastmath": False, "error_model": "numpy", "forceinline": True}
    overload(stub, jit_options=options)(lambda x: _BY_TYPE[x][name])
    return stub


_exp, _tanh, _log = _in_both("exp"), _in_both("tanh"), _in_both("log")


@loop("r1 r2 w1 w2", fastmath=False)
def exp(x, t, y, ty):
    u, v = t[0], ty[0]
    for i in range(x.size):
        value = _exp(x[i])
        y[i] = value
        v[i] = value * u[i]
    for j in range(1, len(t)):
        u, v = t[j], ty[j]
        for i in range(x.size):
            v[i] = y[i] * u[i]


@loop("r1 r2 w1 w2", fastmath=False)
def tanh(x, t, y, ty):
    one = x.dtype.type(1)
    u, v = t[0], ty[0]
    for i in range(x.size):
        value = _tanh(x[i])
        y[i] = value
        v[i] = fma(-value, value, one) * u[i]
    for j in range(1, len(t)):
        u, v = t[j], ty[j]
        for i in range(x.size):
            v[i] = fma(-y[i], y[i], one) * u[i]


@loop("r1 r2 w1 w2", fastmath=False)
def log(x, t, y, ty):
    one = x.dtype.type(1)
    u, v = t[0], ty[0]
    for i in range(x.size):
        y[i] = _log(x[i])
        v[i] = (one / x[i]) * u[i]
    for j in range(1, len(t)):
        u, v = t[j], ty[j]
        for i in range(x.size):
            v[i] = (one / x[i]) * u[i]


@loop("r1 r1 r2 r2 w1 w2", fastmath=False)
def multiply(a, b, ta, tb, y, ty):
    u, v, w = ta[0], tb[0], ty[0]
    for i in range(a.size):
        y[i] = a[i] * b[i]
        w[i] = b[i] * u[i] + a[i] * v[i]
    for j in range(1, len(ta)):
        u, v, w = ta[j], tb[j], ty[j]
        for i in range(a.size):
            w[i] = b[i] * u[i] + a[i] * v[i]
