"""Lengths (abs, hypot, norms): not smooth at 0, but their squares are.

The tangent of a length at 0 is 0 by convention, and from tangents of 0 no product of lengths can
have the second derivative 2 that the square of a length has there. So a length that is 0 remembers
its square as a sum of squares, and n * n, n**2 and np.square(n) are that. Only derivatives of
second order can tell the difference, and only there is the sum computed.
"""

from collections.abc import Callable

import numpy as np

from ..dual import DualTensor, primal_of
from ..primitive import Primitive


def unit(x, y):
    """x / y, and 0 where y, a length, is 0."""
    return np.where(y == 0, 0, x / np.where(y == 0, 1, y))


def _is_higher(y):
    """Whether y carries derivatives of order 2: a nested dual, or one with a Taylor series."""
    return type(y.primal) is DualTensor or getattr(y.carrier, "order", 1) > 1


def length(y, square: Callable):
    """Return y, a length; square() gives its square from what y was computed of."""
    if type(y) is DualTensor and _is_higher(y) and np.any(primal_of(y) == 0):
        y.squared = square()
    return y


def square_of(x):
    """|x|**2, real."""
    return np.real(x * np.conj(x)) if x.dtype.kind == "c" else x * x


class Squaring(Primitive):
    """A primitive that squares the first of some arguments: of a length, the square it knows."""

    squares: Callable[..., bool]  # whether these arguments ask for a square

    @classmethod
    def of(cls, p: Primitive, squares: Callable[..., bool]) -> "Squaring":
        made = cls.__new__(cls)
        vars(made).update(vars(p))
        made.squares = squares
        return made

    def general(self, *args, **params):
        y = super().general(*args, **params)
        if hasattr(args[0], "squared") and self.squares(*args):
            return np.where(primal_of(args[0]) == 0, args[0].squared, y)
        return y


SQUARES: dict[Callable, Callable[..., bool]] = {
    np.square: lambda x: True,
    np.multiply: lambda a, b: a is b,
    np.power: lambda a, b: type(b) is not DualTensor and np.ndim(b) == 0 and b == 2,
}
SQUARES[np.float_power] = SQUARES[np.power]
