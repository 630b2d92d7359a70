"""Partial derivatives of elementwise functions: numbers, arrays, masks, and what is kept apart."""

from typing import Any, NamedTuple

import numpy as np

from .beside import beside
from .dual import Array, DualTensor, primal_of
from .kernels.select import select


class Share(NamedTuple):
    """A partial that selects where mask is true and divides what is selected among `count` ties."""

    mask: Array
    count: Array


class Guarded(NamedTuple):
    """A partial that is not defined where mask is true: NaN there, but 0 for a tangent of 0."""

    partial: Array
    mask: Array

    def parts(self) -> tuple["Guarded", Array]:
        """Return the partial with 0 where it is infinite, and the signs of those infinities."""
        infinite = self.mask & np.isinf(self.partial)
        slope = primal_of(self.partial)
        signs = 1 if slope.dtype.kind == "c" else np.sign(slope)
        finite = Guarded(np.where(infinite, 0, self.partial), self.mask & ~infinite)
        return finite, np.where(infinite, signs, beside(slope).zeros(1, slope.dtype))


def split_infinities(residuals: Any) -> tuple[Any, Any]:
    """Return the residuals of an elementwise primitive in two, as `Guarded.parts` has them.

    The second is None where no partial is guarded.
    """
    ps, arguments, ndim = residuals
    if not any(type(p) is Guarded for p in ps):
        return residuals, None
    split = [p.parts() if type(p) is Guarded else (p, None) for p in ps]
    return ([p for p, _ in split], arguments, ndim), ([s for _, s in split], arguments, ndim)


def times(partial: Any, t: Array) -> Array:
    """Return partial * t; boolean partials select, so that 0 * inf never makes a NaN."""
    if type(partial) is int and abs(partial) == 1:
        return t if partial == 1 else -t
    dtype = getattr(partial, "dtype", None)
    if dtype is not None:
        return partial * t if dtype.kind != "b" else _select(partial, t)
    if type(partial) is Share:
        return _select(partial.mask, t) / partial.count
    if type(partial) is Guarded:
        return np.where(partial.mask & (t == 0), 0, partial.partial) * t
    return partial * t


def moved(partial: Any, t: Array) -> Array:
    """Return partial * t as a new array: y = x + c must not share x's tangent, y may be written."""
    return np.copy(t) if type(partial) is int and partial == 1 else times(partial, t)


def _select(mask: Array, t: Array) -> Array:
    return np.where(mask, t, 0) if type(t) is DualTensor else select(beside(t).asarray(mask), t)


def conjugate(partial: Any) -> Any:
    """Return the partial of the transpose: <u, p t> = <conj(p) u, t> under Re(sum(conj(u) v))."""
    if isinstance(partial, complex):
        return partial.conjugate()
    if type(partial) is Guarded:
        return Guarded(np.conj(partial.partial), partial.mask)
    return np.conj(partial) if getattr(partial, "dtype", np.dtype(float)).kind == "c" else partial
